"""What a request that waits costs."""

import asyncio
from collections.abc import Awaitable

from controller.picker.base_models import BaseModels
from controller.picker.choosing import Choosing
from controller.picker.decisions import Decisions
from controller.picker.durations import PickDurations
from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.loads import load_of
from controller.picker.picks import HTTP_ANSWERS, Picks
from controller.picker.requests import BodyPieces
from tests.picker.conftest import Picker

from .conftest import POOL, policy_of

HEADERS = {b"x-infergate-pool": POOL.encode(), b"x-infergate-then": b"@serve"}


def _body() -> BodyPieces:
    body = BodyPieces()
    body.add(b'{"prompt":"%b"}' % (b"x" * 1_000_000))
    return body


async def test_body_of_a_request_that_waits_is_not_kept() -> None:
    picker = Picker()
    picker.serve("a")
    flow = FlowController(
        loads=lambda _, now: [load_of(picker.endpoint("a"), now=now, staleness=3.0)],
        tenants=Tenants(bytes(16)),
        clock=picker.clock,
        later=asyncio.get_running_loop().call_later,
    )
    flow.apply({POOL: policy_of(slots=1)})
    choosing = Choosing(
        HTTP_ANSWERS,
        director=picker.director,
        durations=PickDurations(),
        flow=flow,
        decisions=Decisions(picker.clock),
        clock=picker.clock,
    )
    picks = Picks(
        choosing, director=picker.director, completions=picker.completions, clock=picker.clock, base_models=BaseModels()
    )
    first, second = (_body(), _body())
    served = picks.answer("POST", "/v1/completions", {**HEADERS, b"x-infergate-request": b"1"}, first)
    waits = picks.answer("POST", "/v1/completions", {**HEADERS, b"x-infergate-request": b"2"}, second)
    assert isinstance(served, bytes)
    assert isinstance(waits, Awaitable)
    assert (len(second.kept), second.size) == (0, len(first.kept))
    waiting = asyncio.ensure_future(waits)
    await asyncio.sleep(0)
    picker.complete("1", endpoint="a")
    flow.changed(POOL)
    # It is picked for by what was read of its prompt.
    assert b"x-accel-redirect" in await waiting
    assert picker.endpoint("a").open["2"].prompt_bytes > 1_000_000 - 100
