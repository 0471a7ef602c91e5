"""Where a request goes when its endpoint fails, if the policy asks for several."""

from controller.picker.answers import answer_of_pick
from controller.picker.endpoints import Endpoint
from controller.picker.scheduling.profile import PluginSpec

from .conftest import Picker, request_of


def several(count: int = 3) -> Picker:
    spec = PluginSpec("max-score-picker", parameters={"max_num_of_endpoints": count})
    picker = Picker(plugins=(spec,), profile=(("max-score-picker", 1.0),))
    picker.serve("a", "b", "c", "d")
    return picker


def test_answer_names_the_fallbacks_in_order() -> None:
    picker = several()
    request = request_of("1")
    chosen = picker.director.pick(request)
    assert isinstance(chosen, list)
    assert all(isinstance(endpoint, Endpoint) for endpoint in chosen)
    first, second, third = (endpoint.address for endpoint in chosen)
    text = answer_of_pick(request, chosen).decode()
    assert f"x-gateway-destination-endpoint: {first}\r\n" in text
    assert f"x-gateway-destination-endpoint-fallbacks: {second},{third}\r\n" in text


def test_only_the_first_counts_as_in_flight() -> None:
    picker = several()
    first, second, _ = picker.picked("1")
    assert (picker.count(first), picker.count(second)) == (1, 0)


def test_retry_goes_to_the_fallbacks_in_order() -> None:
    picker = several()
    first, second, third = picker.picked("1")
    # By the rule it would be another one.
    for name in (second, third):
        picker.endpoint(name).worked(4.0)
        picker.endpoint(name).backlog = 4000
    assert picker.picked("1", tried=f"{first}:8000=closed;") == [second, third]
    tried = f"{first}:8000=closed;{second}:8000=closed;"
    assert picker.picked("1", tried=tried) == [third]


def test_fallback_that_fails_or_left_is_passed_over() -> None:
    picker = several()
    first, second, third = picker.picked("1")
    health = picker.endpoint(second).health
    health.pause, health.paused_until = 1.0, picker.clock() + 1
    assert picker.picked("1", tried=f"{first}:8000=closed;")[0] == third
    picker = several(2)
    first, second = picker.picked("1")
    left = "abcd".replace(second, "")
    picker.serve(*left)
    assert picker.pick("1", tried=f"{first}:8000=closed;") in left.replace(first, "")
