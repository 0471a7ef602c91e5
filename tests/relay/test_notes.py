"""What a picker says of a request besides, as NGINX is told of it."""

from typing import cast

import pytest

from controller.extproc.messages import EXPLANATION_KEY, MODEL_KEY, OWN_NAMESPACE
from controller.headers import EXPLAIN_HEADER, MODEL_HEADER
from controller.relay.pools import RelayPool
from controller.relay.relayed import Relayed, Services
from controller.relay.server import Reply, Request
from controller.relay.tallies import Tally


def _notes(**told: object) -> dict[bytes, bytes]:
    relayed = Relayed(
        cast(Request, None), cast(Reply, None), cast(Services, None), pool="", stem="", fields=[], tally=Tally()
    )
    relayed.take_note({OWN_NAMESPACE: told}, pool=RelayPool("", frozenset(), (), speaks_http2=False))
    return dict(relayed.notes())


def test_model_and_explanation_are_told() -> None:
    notes = _notes(**{MODEL_KEY: "modèle", EXPLANATION_KEY: '{"choice": null}'})
    assert notes == {MODEL_HEADER.encode(): "modèle".encode(), EXPLAIN_HEADER.encode(): b'{"choice": null}'}


@pytest.mark.parametrize("value", ["a\r\nx-accel-redirect: @no", "a\0", "x" * 6001, 7, None, ["a"], {"a": "b"}])
def test_what_a_header_cannot_hold_is_not_told(value: object) -> None:
    assert _notes(**{MODEL_KEY: value, EXPLANATION_KEY: value}) == {}


def test_explanation_is_ascii() -> None:
    assert _notes(**{EXPLANATION_KEY: "warum? darüm"}) == {}


def test_time_of_the_choice_is_told_in_milliseconds_that_have_passed() -> None:
    relayed = Relayed(
        cast(Request, None), cast(Reply, None), cast(Services, None), pool="", stem="", fields=[], tally=Tally()
    )
    relayed.chosen_within(0.0029)
    relayed.chosen_within(0.5)
    assert relayed.notes() == [(b"x-infergate-pick", b"0.002")]
