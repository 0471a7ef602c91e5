"""What a picker is asked to choose from."""

import pytest

from controller.bundle import ENDPOINT_HEADER, session_id
from controller.extproc.messages import SESSION_KEY, SUBSET_KEY
from controller.relay.pools import RelayPool
from controller.relay.scope import Scope, scope_of

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
    assert _scope(on=B).beside([B], pool=POOL) == Scope((A, C))
    assert _scope(on=B, subset="10.0.0.1").beside([B], pool=POOL) == Scope((A,))
    assert _scope(on=B, subset=B).beside([B], pool=POOL) is None
