"""A part of others that fails, where a gateway asks by ext_proc."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.extproc.messages import Immediate
from controller.picker.endpoints import Endpoint
from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind, Plugin
from controller.plugins.types import AppliedPolicy, ConfiguredPlugin, Scheduling

from .conftest import gateway_of, served_picker
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
