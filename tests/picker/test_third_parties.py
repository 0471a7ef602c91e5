"""Parts of others, which may do anything: what clients and other requests see of it."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.picker.endpoints import Endpoint
from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind, Plugin
from controller.plugins.types import Admission, AppliedPolicy, ConfiguredPlugin, DetectorConfig, FlowControlConfig
from controller.plugins.types import Scheduling as Profile
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of

from .test_app import LOOK_EVERY, LOOKS, Running, running_picker

ADDRESSES = ("127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1")
ONE_AT_A_TIME = Admission(
    flow_control=FlowControlConfig(saturation_detector=DetectorConfig("concurrency-detector", {"maxConcurrency": 1}))
)


class Odd:
    """A scorer that says what it is told to, or raises it."""

    says: Any = None  # Any: nothing that a scorer is to say

    def score(self, request: object, endpoints: Sequence[Endpoint], *, now: float) -> Any:  # Any: as above
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Odd:
    """The scorer that an installed package brings."""
    part = Odd()
    plugin = Plugin("odd", (Kind.SCORER,), "x", build=lambda parameters, surroundings: part)
    monkeypatch.setattr("controller.picker.parts.installed", lambda: Catalogue((*BUILT_IN.plugins, plugin)))
    return part


async def serve(running: Running, *addresses: str, admission: Admission = Admission()) -> None:  # noqa: B008 - frozen
    """Serve a pool whose policy names the scorer."""
    endpoints = tuple(PoolEndpoint(address=address, name=f"llm/{n}") for n, address in enumerate(addresses))
    parts = ((), (ConfiguredPlugin("odd", "odd"),), ConfiguredPlugin("max-score-picker", "max-score-picker"))
    pool = Pool(name="llm/gpu", endpoints=endpoints, policy=AppliedPolicy(Profile(*parts), admission, explain=True))
    fresh = running.directory / "pools.new"
    fresh.write_bytes(encode_pools(pools_of((pool,))))
    fresh.rename(running.directory / "pools.json")
    await running.until(lambda view: view["pools"])


async def until_one_waits(running: Running) -> None:
    for _ in range(LOOKS):
        if "infergate_flow_control_queue_size{" in (await running.client.get("http://picker/metrics")).text:
            return
        await asyncio.sleep(LOOK_EVERY)
    raise TimeoutError("nothing waits")


async def test_part_that_raises_is_no_mistake_of_the_client(
    tmp_path: Path, odd: Odd, caplog: pytest.LogCaptureFixture
) -> None:
    odd.says = ZeroDivisionError("theirs")
    async with running_picker(tmp_path) as running:
        await serve(running, *ADDRESSES)
        for n in range(3):
            answer = await running.pick(str(n))
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "picker_failed")
    (told,) = [record for record in caplog.records if record.message == "pick failed, so may others of the pool"]
    assert told.exc_info is not None
    assert told.exc_info[1] is odd.says


async def test_part_that_raises_after_a_wait_is_answered(tmp_path: Path, odd: Odd) -> None:
    async with running_picker(tmp_path) as running:
        await serve(running, ADDRESSES[0], admission=ONE_AT_A_TIME)
        assert (await running.pick("first")).status_code == 200
        waiting = asyncio.create_task(running.pick("second"))
        await until_one_waits(running)
        odd.says = ZeroDivisionError("theirs")
        await serve(running, *ADDRESSES, admission=ONE_AT_A_TIME)
        assert (await waiting).status_code == 500


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ((0.2, 0.9, 0.4), 200),
        ((-7.0, 1e308, math.nan), 200),
        ((math.nan, math.inf, math.nan), 200),
        ((False, True, False), 200),
        ((0.5,), 500),
        ((0.5, 0.9, 0.5, 0.5), 500),
        ((0.5, None, 0.5), 500),
        (None, 500),
    ],
)
async def test_odd_scores_are_held_to_their_range(
    tmp_path: Path, odd: Odd, says: tuple[float, ...], status: int
) -> None:
    odd.says = says
    async with running_picker(tmp_path) as running:
        await serve(running, *ADDRESSES)
        answer = await running.pick("1", headers={"x-infergate-explain": "1"})
        assert answer.status_code == status
        (shown,) = (await running.client.get("http://picker/decisions")).json()["decisions"]
        if status == 200:
            assert (shown["choice"], 0 < shown["scores"]["odd"] <= 1) == (ADDRESSES[1], True)
            told = [one["scores"]["odd"] for one in shown["explanation"]["candidates"]]
            assert all(0 <= score <= 1 for score in told)
        else:
            assert (shown["outcome"], shown["choice"]) == ("picker_failed", None)


async def test_part_that_cannot_be_built_gives_way_to_the_default_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Plugin("odd", (Kind.SCORER,), "x", build=lambda parameters, surroundings: 1 / 0)
    monkeypatch.setattr("controller.picker.parts.installed", lambda: Catalogue((*BUILT_IN.plugins, plugin)))
    async with running_picker(tmp_path) as running:
        await serve(running, *ADDRESSES)
        assert (await running.pick("1")).status_code == 200
