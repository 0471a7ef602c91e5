"""When an endpoint is avoided, and how it comes back."""

import math

import pytest

from controller.picker.health import ERRORS_IN_A_ROW, LONGEST_PAUSE, Failure, Health
from controller.picker.scheduling.profile import PluginSpec

from .conftest import Picker


def fail(picker: Picker, request: str) -> str:
    """Send a request and let it fail; where it went first."""
    first = picker.pick(request)
    picker.pick(request, tried=f"{first}:8000=unreachable;")
    return first


def test_unreachable_endpoint_is_avoided_at_once(picker: Picker) -> None:
    picker.serve("a", "b")
    failed = fail(picker, "1")
    assert failed not in {picker.pick(str(n)) for n in range(10, 30)}


def test_failing_endpoint_is_used_when_no_other_is_left(picker: Picker) -> None:
    picker.serve("a")
    assert fail(picker, "1") == "a"
    assert picker.pick("2") == "a"


def test_pool_whose_endpoints_all_fail_says_so(picker: Picker, caplog: pytest.LogCaptureFixture) -> None:
    picker.serve("a")
    fail(picker, "1")
    for n in range(10, 13):
        picker.pick(str(n))
    picker.clock.pass_(1.1)
    picker.pick("probe")
    told = [(outcome.value, count) for (_, outcome), count in sorted(picker.director.picks.items())]
    assert told == [("endpoints_failed", 1), ("picked", 2), ("picked_failing", 3)]
    assert [record.message for record in caplog.records].count("every endpoint fails, one is tried all the same") == 1


def test_one_request_probes_after_the_pause_and_success_brings_it_back(picker: Picker) -> None:
    picker.serve("a", "b")
    failed = fail(picker, "1")
    picker.clock.pass_(1.1)
    probes = [n for n in range(10, 30) if picker.pick(str(n)) == failed]
    assert len(probes) == 1
    picker.complete(str(probes[0]), endpoint=failed)
    assert picker.endpoint(failed).health.pause == 0
    assert failed in {picker.pick(str(n)) for n in range(40, 44)}


def test_pauses_double_up_to_a_limit() -> None:
    health = Health()
    now = 0.0
    health.failed(Failure.UNREACHABLE, request="first", now=now)
    pauses = []
    for n in range(7):
        pauses.append(health.pause)
        now = health.paused_until
        health.picked(f"{n}", now=now)
        health.failed(Failure.UNREACHABLE, request=f"{n}", now=now)
    assert pauses == [1, 2, 4, 8, 16, 30, LONGEST_PAUSE]


@pytest.mark.parametrize(("takes", "most"), [(0.2, 9), (5.0, 9), (60.0, 9)])
def test_pauses_grow_however_long_failures_take(picker: Picker, takes: float, most: int) -> None:
    picker.plugins, picker.profile = (PluginSpec("random-picker"),), (("random-picker", 1.0),)
    picker.serve("a", "b")
    failed = fail(picker, "1")
    probes: dict[str, float] = {}
    for n in range(1200):
        picker.clock.pass_(0.1)
        for probe in [probe for probe, at in probes.items() if at + takes <= picker.clock()]:
            picker.pick(probe, tried=f"{failed}:8000=timeout;")
            probes[probe] = math.inf
        if picker.pick(str(n)) == failed:
            probes[str(n)] = picker.clock()
        else:
            picker.complete(str(n), endpoint="ab".replace(failed, ""))
    assert 1 < len(probes) <= most
    assert picker.endpoint(failed).health.pause == LONGEST_PAUSE


def test_client_of_a_probe_that_hangs_up_lengthens_no_pause(picker: Picker) -> None:
    picker.serve("a")
    fail(picker, "1")
    for n in range(5):
        picker.clock.pass_(1.1)
        picker.pick(str(n))
        picker.complete(str(n), endpoint="a", status=499, upstream_status="200 : 499")
    assert picker.endpoint("a").health.pause == 1


def test_requests_that_fail_together_are_one_failure() -> None:
    health = Health()
    for n in range(10):
        health.failed(Failure.CLOSED, request=f"{n}", now=0)
    assert (health.pause, health.failures[Failure.CLOSED]) == (1, 10)


def test_probe_whose_end_is_lost_does_not_keep_the_endpoint_out() -> None:
    health = Health()
    health.failed(Failure.CLOSED, request="1", now=0)
    health.picked("lost", now=1)
    assert not health.may_serve(1.5)
    assert health.may_serve(2)


def test_success_of_a_request_from_before_the_trouble_proves_nothing(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("old")
    picker.clock.pass_(5)
    fail(picker, "1")
    picker.complete("old", endpoint="a")
    assert picker.endpoint("a").health.pause == 1


@pytest.mark.parametrize(("status", "needed"), [(503, 1), (502, 1), (500, ERRORS_IN_A_ROW)])
def test_errors_of_a_pod_take_it_out(picker: Picker, status: int, needed: int) -> None:
    picker.serve("a")
    for n in range(needed):
        assert picker.endpoint("a").health.pause == 0
        picker.pick(str(n))
        picker.complete(str(n), endpoint="a", status=status, upstream_status=f"200 : {status}")
    assert picker.endpoint("a").health.pause == 1


def test_answers_that_are_no_http_take_a_pod_out(picker: Picker) -> None:
    """NGINX tells them as 200 of the upstream, and of the client as a status that HTTP does not have."""
    picker.serve("a")
    picker.pick("1")
    picker.complete("1", endpoint="a", status=0, upstream_status="200 : 200")
    assert picker.endpoint("a").health.pause == 1


def test_errors_between_successes_do_not(picker: Picker) -> None:
    picker.serve("a")
    for n in range(20):
        picker.pick(str(n))
        picker.complete(str(n), endpoint="a", upstream_status=f"200 : {200 if n % 3 else 500}")
    assert picker.endpoint("a").health.pause == 0


def test_endpoint_that_fails_half_of_its_requests_is_avoided(picker: Picker) -> None:
    picker.serve("a")
    for n in range(20):
        assert picker.endpoint("a").health.pause == 0
        picker.pick(str(n))
        picker.complete(str(n), endpoint="a", upstream_status=f"200 : {500 if n % 2 else 200}")
    assert picker.endpoint("a").health.pause == 1


@pytest.mark.parametrize("upstream_status", ["200", "200 : 502 : 503", "200 : -", "200 : 499", "-", ""])
def test_status_that_is_not_the_endpoints_is_no_verdict(picker: Picker, upstream_status: str) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.complete("1", endpoint="a", upstream_status=upstream_status)
    assert picker.endpoint("a").health.failures.total() == 0
    # Nor does it prove that an endpoint that failed is well.
    picker.pick("2")
    picker.pick("2", tried="a:8000=closed;")
    picker.clock.pass_(2)
    picker.pick("probe")
    picker.complete("probe", endpoint="a", upstream_status=upstream_status)
    assert picker.endpoint("a").health.pause > 0


@pytest.mark.parametrize("status", [200, 400, 401, 404, 408, 413, 422, 429])
def test_what_clients_do_wrong_is_no_fault_of_the_endpoint(picker: Picker, status: int) -> None:
    picker.serve("a")
    for n in range(100):
        picker.pick(str(n))
        picker.complete(str(n), endpoint="a", status=status, upstream_status=f"200 : {status}")
    assert (picker.endpoint("a").health.pause, picker.endpoint("a").health.failures.total()) == (0, 0)


def test_what_clients_do_wrong_does_not_say_that_an_endpoint_works(picker: Picker) -> None:
    picker.serve("a")
    for n in range(2 * ERRORS_IN_A_ROW):
        assert picker.endpoint("a").health.pause == 0
        picker.pick(str(n))
        status = 500 if n % 2 else 400
        picker.complete(str(n), endpoint="a", upstream_status=f"200 : {status}")
    picker.clock.pass_(2)
    picker.pick("refused")
    picker.complete("refused", endpoint="a", upstream_status="200 : 400")
    assert picker.endpoint("a").health.pause > 0
    picker.clock.pass_(2)
    picker.pick("served")
    picker.complete("served", endpoint="a", upstream_status="200 : 200")
    assert picker.endpoint("a").health.pause == 0


def test_what_clients_do_wrong_shows_that_an_endpoint_is_there_again(picker: Picker) -> None:
    picker.serve("a", "b")
    failed = fail(picker, "1")
    picker.clock.pass_(1.1)
    (probe,) = (str(n) for n in range(10, 30) if picker.pick(str(n)) == failed)
    picker.complete(probe, endpoint=failed, upstream_status="200 : 404")
    assert picker.endpoint(failed).health.pause == 0


def test_failure_is_counted_after_a_restart_too(picker: Picker) -> None:
    picker.serve("a", "b")
    assert picker.pick("1", tried="a:8000=unreachable;") == "b"
    assert picker.endpoint("a").health.pause == 1


def test_first_byte_of_the_probe_brings_it_back_while_the_answer_goes_on(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("old", is_streamed=True)
    picker.clock.pass_(1)
    fail(picker, "1")
    picker.clock.pass_(1.1)
    picker.pick("probe", is_streamed=True)
    picker.first_byte("old", 2.1)
    assert picker.endpoint("a").health.pause == 1
    picker.first_byte("probe", 0.1)
    assert picker.endpoint("a").health.pause == 0
