"""A part of others that fails, where a gateway asks by ext_proc."""

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from controller.extproc.messages import Immediate
from controller.picker.endpoints import Endpoint
from controller.picker.ext_proc.exchange import Exchange
from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind, Plugin
from controller.plugins.types import AppliedPolicy, ConfiguredPlugin, Scheduling

from .conftest import ONE_AT_A_TIME, Gateway, Served, eventually, gateway_of, response_headers, served_picker
from .test_responses import PODS, picked


class Second:
    """A scorer that fails at every second request."""

    asked = 0

    def score(self, request: object, endpoints: Sequence[Endpoint], *, now: float) -> list[float]:
        self.asked += 1
        if self.asked % 2 == 0:
            raise ZeroDivisionError
        return [1.0 for _ in endpoints]


async def test_part_that_raises_ends_its_own_stream_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin("second", (Kind.SCORER,), "x", build=lambda parameters, surroundings: Second())
    monkeypatch.setattr("controller.picker.parts.installed", lambda: Catalogue((*BUILT_IN.plugins, plugin)))
    parts = ((), (ConfiguredPlugin("second", "second"),), ConfiguredPlugin("max-score-picker", "max-score-picker"))
    async with served_picker(tmp_path) as picker, gateway_of(picker.address) as gateway:
        await picker.serving(*PODS, policy=AppliedPolicy(Scheduling(*parts)))
        first, endpoint = await picked(gateway)
        second = gateway.talk()
        await second.ask("/v1/completions", body=b"{}")
        answer, _ = await second.next()
        assert isinstance(answer, Immediate)
        assert answer.status == 500
        await second.close()
        # The connection has streamed on.
        await first.respond(b"{}", served=endpoint)
        await first.close()
        await picker.at_rest()


async def test_fault_of_the_picker_ends_its_own_stream_alone(
    picker: Served, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    await picker.serving(*PODS)
    first, endpoint = await picked(gateway)
    second, _ = await picked(gateway)
    with monkeypatch.context() as patched:
        patched.setattr(Exchange, "take", fail)
        await second.send(response_headers())
        assert await second.code() is grpc.StatusCode.INTERNAL
    assert await picker.metric("infergate_ext_proc_streams_ended_total", end="failed") == 1
    await first.respond(b"{}", served=endpoint)
    await first.close()
    await picker.at_rest()


async def test_fault_of_the_picker_after_a_wait_ends_the_stream(
    picker: Served, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    await picker.serving(PODS[0], policy=ONE_AT_A_TIME)
    first, _ = await picked(gateway)
    second = gateway.talk()
    await second.ask("/v1/completions", body=b"{}")
    await eventually(lambda: _waits(picker))
    monkeypatch.setattr(Exchange, "decided", fail)
    await first.close()
    assert await second.code() is grpc.StatusCode.INTERNAL


async def _waits(picker: Served) -> bool:
    return await picker.metric("infergate_flow_control_queue_size") == 1
