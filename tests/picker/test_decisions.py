"""The last decisions, as they are shown."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.headers import ENDPOINT_HEADER
from controller.picker.decisions import KEPT, Decisions
from controller.plugins.types import Admission, AppliedPolicy, DetectorConfig, FlowControlConfig
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of

from .conftest import Clock, Picker, request_of
from .test_app import LOOK_EVERY, LOOKS, Running, running_picker


def serve(running: Running, *addresses: str, name: str = "llm/gpu", policy: AppliedPolicy = AppliedPolicy()) -> None:  # noqa: B008 - frozen
    """Replace the pools file."""
    endpoints = tuple(PoolEndpoint(address=address, name=f"llm/{n}") for n, address in enumerate(addresses))
    fresh = running.directory / "pools.new"
    fresh.write_bytes(encode_pools(pools_of((Pool(name=name, endpoints=endpoints, policy=policy),))))
    fresh.rename(running.directory / "pools.json")


async def shown(running: Running, query: str = "") -> Any:  # Any: JSON
    answer = await running.client.get(f"http://picker/decisions{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert "secret" not in answer.text
    return answer.json()["decisions"]


async def test_pick_is_shown_without_what_was_said(tmp_path: Path) -> None:
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1", "127.0.0.2:1")
        await running.until(lambda view: view["pools"])
        body = b'{"model":"m","prompt":"%b"}' % (b"secret" * 200)
        headers = {"x-request-id": "mine", "authorization": "Bearer secret"}
        first = await running.pick("1", body=body, headers=headers)
        second = await running.pick("2", body=body)
        newest, oldest = await shown(running)
        assert (oldest["requestId"], newest["requestId"]) == ("mine", "2")
        assert [oldest["choice"], newest["choice"]] == [one.headers[ENDPOINT_HEADER] for one in (first, second)]
        assert (oldest["promptTokens"], oldest["cachedTokens"], oldest["chunks"]) == (300, 0, 4)
        assert newest["cachedTokens"] == (256 if newest["choice"] == oldest["choice"] else 0)
        assert (oldest["candidates"], oldest["outcome"], oldest["waitedMs"]) == (2, "picked", 0)
        assert 0 < oldest["scores"]["expected-time-scorer"] <= 1
        assert oldest["explanation"] is None
        assert oldest["bodyBytes"] == len(body)


async def test_refusals_and_retries_are_shown(tmp_path: Path) -> None:
    async with running_picker(tmp_path) as running:
        serve(running)
        await running.until(lambda view: view["etag"])
        await running.pick("1")
        serve(running, "127.0.0.1:1", "127.0.0.2:1")
        await running.until(lambda view: view["pools"][0]["endpoints"])
        await running.pick("2", tried="127.0.0.1:1=closed;")
        retry, refused = await shown(running)
        assert (refused["outcome"], refused["choice"], refused["scores"]) == ("no_endpoints", None, {})
        assert (retry["outcome"], retry["choice"], retry["tries"]) == ("picked", "127.0.0.2:1", 1)


async def test_choice_among_endpoints_that_all_fail_says_so(tmp_path: Path) -> None:
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1", policy=AppliedPolicy(explain=True))
        await running.until(lambda view: view["pools"])
        for number in range(3):
            await running.pick(f"{number}")
            await running.pick(f"{number}", tried="127.0.0.1:1=closed;")
        await running.pick("last", headers={"x-infergate-explain": "1"})
        last, *_ = await shown(running)
        assert (last["choice"], last["outcome"]) == ("127.0.0.1:1", "picked_failing")
        assert last["explanation"]["outcome"] == "picked_failing"


async def test_only_a_request_that_asks_is_explained(tmp_path: Path) -> None:
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1", policy=AppliedPolicy(explain=True))
        await running.until(lambda view: view["pools"])
        await running.pick("1")
        await running.pick("2", headers={"x-infergate-explain": "1"})
        asked, other = await shown(running)
        assert other["explanation"] is None
        assert asked["explanation"]["choice"] == asked["choice"] == "127.0.0.1:1"


async def test_waits_are_shown(tmp_path: Path) -> None:
    detector = DetectorConfig("concurrency-detector", {"maxConcurrency": 1})
    control = FlowControlConfig(saturation_detector=detector, default_request_ttl=0.05)
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1", policy=AppliedPolicy(admission=Admission(flow_control=control)))
        await running.until(lambda view: view["pools"])
        await running.pick("1")
        assert (await running.pick("2")).status_code == 429
        dropped, _ = await shown(running)
        assert (dropped["outcome"], dropped["choice"]) == ("rejected-ttl-expired", None)
        assert dropped["waitedMs"] >= 50


async def test_client_that_hung_up_in_the_queue_is_shown(tmp_path: Path) -> None:
    detector = DetectorConfig("concurrency-detector", {"maxConcurrency": 1})
    control = FlowControlConfig(saturation_detector=detector)
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1", policy=AppliedPolicy(admission=Admission(flow_control=control)))
        await running.until(lambda view: view["pools"])
        await running.pick("1")
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "p.sock"))
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\nx-infergate-pool: llm/gpu\r\nx-infergate-then: @a\r\n"
            b"x-infergate-request: gone\r\ncontent-length: 2\r\n\r\n{}"
        )
        await writer.drain()
        writer.close()
        for _ in range(LOOKS):
            newest, *_ = await shown(running)
            if newest["requestId"] == "gone":
                break
            await asyncio.sleep(LOOK_EVERY)
        assert newest["requestId"] == "gone"
        assert newest["outcome"] == "client_hung_up"


async def test_pool_and_limit_choose(tmp_path: Path) -> None:
    async with running_picker(tmp_path) as running:
        serve(running, "127.0.0.1:1")
        await running.until(lambda view: view["pools"])
        for number in range(5):
            await running.pick(str(number), pool="llm/gpu" if number % 2 else "llm/none")
        assert [one["requestId"] for one in await shown(running, "?pool=llm/gpu")] == ["3", "1"]
        assert [one["requestId"] for one in await shown(running, "?limit=2")] == ["4", "3"]
        assert (await running.client.get("http://picker/decisions?limit=0")).status_code == 422


def test_only_the_last_are_kept(picker: Picker) -> None:
    picker.serve("a", "b")
    decisions = Decisions(picker.clock, wall=lambda: 1_700_000_000.0)
    for number in range(KEPT + 10):
        request = request_of(str(number), prompt=b"x" * 600)
        picker.director.pick(request)
        decisions.add(request, at=picker.clock(), outcome="picked", choice="a:8000")
    found = decisions.view(pool=None, limit=KEPT)
    assert len(decisions) == len(found) == KEPT
    assert (found[0].request_id, found[-1].request_id) == (str(KEPT + 9), "10")


@pytest.mark.parametrize(("ago", "shown_as"), [(0.0, "2023-11-14T22:13:20.000Z"), (1.5, "2023-11-14T22:13:18.500Z")])
def test_time_is_that_of_the_wall(ago: float, shown_as: str) -> None:
    clock = Clock()
    decisions = Decisions(clock, wall=lambda: 1_700_000_000.0)
    decisions.add(request_of("1"), at=clock() - ago, outcome="picked")
    assert decisions.view(pool=None, limit=1)[0].time == shown_as
