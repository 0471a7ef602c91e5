"""Requests of one session go to one endpoint."""

import json
from typing import Any

import pytest

from controller.headers import session_id
from controller.picker.answers import Refusal
from controller.picker.explain import explanation
from controller.picker.scheduling import sessions
from controller.picker.scheduling.profile import PluginSpec
from controller.picker.trace import Trace
from controller.plugins.parameters import SessionId, SessionSource
from controller.pools import Pool, PoolEndpoint, pools_of

from .conftest import Picker, request_of

SOURCES = SessionId(sources=(SessionSource(header="X-Session-Id"), SessionSource(cookie="sid")))


def sticky(kind: str = "filter", *, replicas: bool = False, **parameters: Any) -> Picker:  # Any: of the plugin
    settings = {"strategy": "session_id", "session_id_config": SOURCES} | parameters
    type_ = f"session-affinity-{kind}"
    plugins = (PluginSpec(type_, parameters=settings), PluginSpec("random-picker"))
    profile = ((type_, 1.0), ("random-picker", 1.0)) if kind == "filter" else ((type_, 1.0),)
    picker = Picker(plugins=plugins, profile=profile, replicas=replicas)
    picker.serve(*"abcdef")
    return picker


def picks(picker: Picker, count: int = 10, **headers: str) -> set[str]:
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return {picker.pick(f"{n}", headers=sent) for n in range(count)}


@pytest.mark.parametrize("kind", ["filter", "scorer"])
@pytest.mark.parametrize("headers", [{"x_session_id": "s"}, {"cookie": "a=b; sid=s"}])
def test_session_stays_where_it_began(kind: str, headers: dict[str, Any]) -> None:
    picker = sticky(kind)
    assert len(picks(picker, **headers)) == 1


@pytest.mark.parametrize("headers", [{}, {"cookie": "xsid=s; sid"}, {"x_session_id": ""}])
def test_request_without_a_session_goes_anywhere(headers: dict[str, str]) -> None:
    assert len(picks(sticky(), 40, **headers)) > 1


def test_session_moves_only_when_its_endpoint_is_no_more() -> None:
    picker = sticky()
    (bound,) = picks(picker, x_session_id="s")
    health = picker.endpoint(bound).health
    health.pause, health.paused_until = 1.0, picker.clock() + 1
    assert bound not in picks(picker, x_session_id="s")
    health.pause = 0.0
    assert picks(picker, x_session_id="s") == {bound}
    left = "abcdef".replace(bound, "")
    picker.serve(*left)
    (moved,) = picks(picker, x_session_id="s")
    picker.serve(*left, bound)
    assert picks(picker, x_session_id="s") == {moved}


def test_session_is_forgotten_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    picker = sticky()
    picks(picker, x_session_id="s")
    picker.clock.pass_(301)
    picks(picker, 1, x_session_id="other")
    assert len(bindings(picker)) == 1
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 5)
    for n in range(20):
        picks(picker, 1, x_session_id=str(n))
    assert len(bindings(picker)) == 5


def test_replicas_agree_on_a_session_that_none_has_seen() -> None:
    one, other = sticky(replicas=True), sticky(replicas=True)
    for n in range(20):
        assert picks(one, 1, x_session_id=str(n)) == picks(other, 1, x_session_id=str(n))


def test_binding_survives_another_profile() -> None:
    picker = sticky()
    (bound,) = picks(picker, x_session_id="s")
    picker.serve(*"abcdefg")
    assert picks(picker, x_session_id="s") == {bound}


@pytest.mark.parametrize("kind", ["filter", "scorer"])
def test_client_keeps_its_endpoint_by_the_token_that_it_is_told(kind: str) -> None:
    picker = sticky(kind, strategy="encoded_endpoint_header")
    first = request_of("first")
    chosen, *_ = picker.director.pick(first)  # type: ignore[misc]  # it is no refusal
    assert first.session_token
    assert picks(picker, x_session_token=first.session_token.decode()) == {chosen.name.removeprefix("llm/")}
    assert len(picks(picker, 40, x_session_token="nonsense!")) > 1


def test_token_tells_ports_of_one_pod_apart() -> None:
    picker = sticky("filter", strategy="encoded_endpoint_header")
    ports = tuple(PoolEndpoint(address=f"a:800{n}", name="llm/a", uid="1") for n in range(4))
    picker.table.apply(pools_of((Pool(name="llm/gpu", endpoints=ports),)))
    for number in range(20):
        first, again = request_of(f"{number}"), request_of(f"{number} again")
        before = picker.director.pick(first)
        again.headers = {b"x-session-token": first.session_token}
        assert picker.director.pick(again) == before


def bindings(picker: Picker) -> dict[int, object]:
    kept = picker.table.pools["llm/gpu"].memory._kept
    (found,) = [one for name, one in kept.items() if name.startswith("sessions/")]
    assert isinstance(found, dict)
    return found


def _told(name: str) -> str:
    return session_id("llm/gpu", f"{name}:8000")


def test_session_of_the_gateway_stays_on_its_endpoint(picker: Picker) -> None:
    picker.serve(*"abcdef")
    assert {picker.pick(f"{n}", session=_told("d")) for n in range(30)} == {"d"}


@pytest.mark.parametrize(
    "told", ["", "d", "d:8000", session_id("llm/other", "d:8000"), session_id("llm/gpu", "z:8000")]
)
def test_session_that_names_no_endpoint_of_the_pool_is_none(picker: Picker, told: str) -> None:
    picker.serve(*"abcdef")
    assert len({picker.pick(f"{n}", session=told) for n in range(30)}) > 1


def test_session_of_the_gateway_leaves_an_endpoint_that_fails(picker: Picker) -> None:
    picker.serve(*"abc")
    health = picker.endpoint("b").health
    health.pause, health.paused_until = 1.0, picker.clock() + 1
    assert picker.pick("1", session=_told("b")) in ("a", "c")
    health.pause = 0.0
    assert picker.pick("2", session=_told("b")) == "b"
    assert picker.pick("2", session=_told("b"), tried="b:8000=closed;") in ("a", "c")


def test_explanation_says_that_a_session_chose(picker: Picker) -> None:
    picker.serve(*"abc")
    request = request_of("1", session=_told("b"), trace=Trace())
    chosen = picker.director.pick(request)
    assert not isinstance(chosen, Refusal)
    assert request.trace
    found = json.loads(explanation(request, request.trace, outcome="picked", chosen=chosen, waited=0.0))
    assert (found["why"], found["choice"]) == ("the endpoint of the session", "b:8000")
