"""Leader election over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.kube import Api
from controller.provider.kubernetes.lease import Leadership, LeaseTimes
from tests.provider.kubernetes.fake import FakeApi, refusal

LEASES = "/apis/coordination.k8s.io/v1/leases"
TIMES = LeaseTimes(duration=1.0, trust=0.5, retry=0.1, call=0.5)


class Candidate:
    def __init__(self, api: Api, identity: str) -> None:
        self.changes: asyncio.Queue[bool] = asyncio.Queue()
        self.leadership = Leadership(
            api, namespace="demo", name="infergate", identity=identity, on_change=self.changes.put_nowait, times=TIMES
        )
        self.task = asyncio.ensure_future(self.leadership.run())

    async def told(self) -> bool:
        return await asyncio.wait_for(self.changes.get(), 5)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def candidate(server: FakeApi, identity: str) -> AsyncIterator[Candidate]:
    async with server.client() as api:
        running = Candidate(api, identity)
        try:
            yield running
        finally:
            await running.stop()


def holder(server: FakeApi) -> str:
    return str(server.get(LEASES, "infergate")["spec"]["holderIdentity"])


@pytest.fixture(autouse=True)
def _leases(server: FakeApi) -> None:
    server.kinds["/apis/coordination.k8s.io/v1"] = {"leases": "Lease"}


async def test_first_candidate_leads_and_keeps_the_lease(server: FakeApi) -> None:
    async with candidate(server, "a") as first:
        assert await first.told()
        async with candidate(server, "b") as second:
            await asyncio.wait({second.task}, timeout=2 * TIMES.duration)
            assert (first.leadership.is_leader, second.leadership.is_leader) == (True, False)
            assert second.changes.empty()
            assert holder(server) == "a"


async def test_leader_that_stops_lets_go_and_another_takes_over_at_once(server: FakeApi) -> None:
    async with candidate(server, "a") as first:
        assert await first.told()
        async with candidate(server, "b") as second:
            await first.stop()
            began = asyncio.get_running_loop().time()
            assert await second.told()
            assert asyncio.get_running_loop().time() - began < TIMES.duration
            assert not first.leadership.is_leader
    assert server.get(LEASES, "infergate")["spec"]["leaseTransitions"] == 2


async def test_leader_that_dies_is_replaced_when_its_lease_runs_out(server: FakeApi) -> None:
    dead = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "leaseTransitions": 4}
    await server.put(LEASES, {"metadata": {"name": "infergate", "namespace": "demo"}, "spec": dead})
    began = asyncio.get_running_loop().time()
    async with candidate(server, "a") as next_one:
        assert await next_one.told()
        assert 1.0 <= asyncio.get_running_loop().time() - began < 1.0 + 3 * TIMES.retry + TIMES.call
    assert server.get(LEASES, "infergate")["spec"]["leaseTransitions"] == 5


async def test_leader_without_api_server_stops_before_its_lease_runs_out(server: FakeApi) -> None:
    async with candidate(server, "a") as leader:
        assert await leader.told()
        began = asyncio.get_running_loop().time()
        await server.stop()
        assert not await leader.told()
        assert asyncio.get_running_loop().time() - began < TIMES.duration
        await server.start()
        assert await leader.told()


async def test_leader_whose_calls_hang_stops_before_its_lease_runs_out(server: FakeApi) -> None:
    async with candidate(server, "a") as leader:
        assert await leader.told()
        server.answers.clear()
        began = asyncio.get_running_loop().time()
        assert not await leader.told()
        assert asyncio.get_running_loop().time() - began < TIMES.duration
        server.answers.set()


async def test_leader_is_none_while_its_loop_is_stuck(server: FakeApi) -> None:
    now = [100.0]
    async with server.client() as api:
        leadership = Leadership(api, namespace="demo", name="x", identity="a", times=TIMES, clock=lambda: now[0])
        task = asyncio.ensure_future(leadership.run())
        async with asyncio.timeout(5):
            while True:
                if leadership.is_leader:
                    break
                await asyncio.sleep(0.005)
        now[0] += TIMES.trust
        assert not leadership.is_leader
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_write_that_another_was_faster_with_is_no_leadership(server: FakeApi) -> None:
    server.fault = lambda request: refusal(409, "Conflict") if request.method in ("POST", "PUT") else None
    async with candidate(server, "a") as loser:
        await asyncio.wait({loser.task}, timeout=0.5)
        assert not loser.leadership.is_leader
