"""What a picker is asked to choose from."""

import pytest

from controller.extproc.messages import SESSION_KEY, SUBSET_KEY, TRIED_KEY
from controller.headers import ENDPOINT_HEADER, TryOutcome, session_id
from controller.picker.director import RETRIES
from controller.relay.pools import RelayPool
from controller.relay.scope import MOST_AGAIN, Scope, Tried, scope_of

A, B, C = "10.0.0.1:80", "10.0.0.1:81", "[2001:db8::1]:80"
POOL = RelayPool("default/gpu", frozenset((A, B, C)), places=(), speaks_http2=False)


def _scope(*, subset: str = "", on: str = "") -> Scope:
    fields = ((SUBSET_KEY, subset), (ENDPOINT_HEADER, session_id(POOL.name, on) if on else ""))
    return scope_of([(name.encode(), value.encode()) for name, value in fields], POOL)


def test_request_without_a_session_may_go_anywhere() -> None:
    assert (_scope().hint, _scope().wish) == ({}, {})


def test_endpoint_of_a_session_is_a_hint_for_any_picker_and_a_wish_for_our_own() -> None:
    scope = _scope(on=C)
    assert (scope.hint, scope.wish) == ({SUBSET_KEY: [C]}, {SESSION_KEY: C})
    assert scope.without_session() == Scope()


def test_endpoint_that_is_gone_is_no_session() -> None:
    assert _scope(on="10.0.0.9:80") == Scope()


@pytest.mark.parametrize(
    ("subset", "on", "is_kept"),
    [
        (A, A, True),
        (f"{A},{C}", C, True),
        ("10.0.0.1", B, True),
        ("[2001:DB8:0::1]:80", C, True),
        ("2001:db8::1", C, True),
        (A, B, False),
        ("10.0.0.9:80", B, False),
    ],
)
def test_subset_holds_for_sessions(subset: str, on: str, is_kept: bool) -> None:
    scope, allowed = _scope(subset=subset, on=on), subset.split(",")
    assert scope.hint == {SUBSET_KEY: [on] if is_kept else allowed}
    assert scope.wish == ({SESSION_KEY: on, SUBSET_KEY: allowed} if is_kept else {})
    assert scope.without_session().hint == {SUBSET_KEY: allowed}


def test_subset_without_a_session_is_the_hint() -> None:
    scope = _scope(subset=f"{A}, {C}")
    assert (scope.hint, scope.wish) == ({SUBSET_KEY: [A, C]}, {})


def test_endpoints_that_did_not_fail_are_left() -> None:
    failed = [Tried(B, TryOutcome.CLOSED)]
    for scope, left in ((_scope(on=B), [A, C]), (_scope(), [A, C]), (_scope(on=B, subset="10.0.0.1"), [A])):
        assert scope.beside(failed, pool=POOL).hint == {SUBSET_KEY: left}
        assert scope.beside(failed, pool=POOL).wish == {TRIED_KEY: f"{B}=closed;"}
    assert _scope(on=B, subset=B).beside(failed, pool=POOL).is_last


def test_picker_is_asked_twice_more_and_for_nothing_then() -> None:
    scope = _scope()
    for number in range(3):
        assert not scope.is_last
        scope = scope.beside([Tried("10.0.0.8:80", TryOutcome.UNREACHABLE)], pool=POOL)
        assert scope.again == number + 1
    assert (scope.is_last, scope.hint, scope.untried([A])) == (True, {SUBSET_KEY: []}, [])


def test_endpoint_that_was_tried_is_not_asked_again() -> None:
    scope = _scope().beside([Tried(A, TryOutcome.CLOSED)], pool=POOL)
    assert scope.untried([A, C, A, B]) == [C, B]


def test_picker_is_asked_as_often_as_the_built_in_one() -> None:
    assert MOST_AGAIN == RETRIES
