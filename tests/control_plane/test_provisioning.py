"""When the objects of data planes are looked at again, and what is known of them meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from controller.control_plane.provisioning import Provisioning, Standing
from controller.dataplane.addresses import Reached
from controller.errors import ApiBusy
from controller.topology.types import GatewayState
from tests.dataplane.test_manifests import CONTROL_PLANE, state_of
from tests.dataplane.test_provision import DEPLOYMENT, SERVICE, ApiServer, Json

WEB = state_of(parameters="{service: {type: ClusterIP}}")
SOON = 5.0
"""Seconds, a quarter of those between two looks that nothing gives rise to."""
BUSY = ApiBusy(503, "ServiceUnavailable", "etcdserver: leader changed")


class _Server(ApiServer):
    """Gives each Service an address, and says that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.news = asyncio.Event()

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json:
        try:
            found = await super().request(method, path, body, query=query)
            if path == SERVICE:
                found["spec"]["clusterIPs"] = ["10.0.0.1"]
            return found
        finally:
            self.news.set()


@dataclass
class _Replica:
    """The provisioning of a replica that leads."""

    server: _Server
    provisioning: Provisioning

    @property
    def standing(self) -> Standing | None:
        return self.provisioning.standing(WEB.key)

    @asynccontextmanager
    async def running(self, *gateways: GatewayState) -> AsyncIterator[None]:
        running = asyncio.create_task(self.provisioning.run())
        self.provisioning.want(gateways)
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not is_so():
                self.server.news.clear()
                await self.server.news.wait()


@pytest.fixture
async def replica() -> _Replica:
    server = _Server()
    return _Replica(
        server,
        Provisioning(server, lambda: CONTROL_PLANE, is_leader=lambda: True, on_change=server.news.set),
    )


async def test_busy_api_server_is_asked_again_soon(replica: _Replica) -> None:
    replica.server.busy[DEPLOYMENT] = [BUSY, BUSY]

    async with replica.running(WEB):
        await replica.until(lambda: DEPLOYMENT in replica.server.objects)


async def test_busy_api_server_is_asked_again_when_it_says(replica: _Replica) -> None:
    clock = asyncio.get_running_loop().time
    begun = clock()
    replica.server.busy[DEPLOYMENT] = [ApiBusy(429, "TooManyRequests", "too many requests", wait=1.5)]

    async with replica.running(WEB):
        await replica.until(lambda: DEPLOYMENT in replica.server.objects)

    assert clock() - begun >= 1.5


async def test_standing_outlasts_a_busy_api_server(replica: _Replica) -> None:
    async with replica.running(WEB):
        await replica.until(lambda: replica.standing is not None)
        before = replica.standing
        replica.server.busy[DEPLOYMENT] = [BUSY]
        replica.server.writes.clear()
        replica.server.touch(DEPLOYMENT)
        replica.provisioning.look_at(WEB.key)
        await replica.until(lambda: not replica.server.busy[DEPLOYMENT])
        meanwhile = replica.standing
        await replica.until(lambda: [path for _, path, _ in replica.server.writes] == [DEPLOYMENT] * 2)

    assert before == Standing(Reached(("10.0.0.1",)), replicas=2)
    assert meanwhile == replica.standing == before


async def test_problem_outlasts_a_busy_api_server(replica: _Replica) -> None:
    replica.server.refused[DEPLOYMENT] = "no"
    async with replica.running(WEB):
        await replica.until(lambda: replica.standing is not None)
        before = replica.standing
        replica.server.busy[DEPLOYMENT] = [BUSY] * 2
        replica.provisioning.look_at(WEB.key)
        await replica.until(lambda: not replica.server.busy[DEPLOYMENT])

    assert before is not None
    assert before.problems == ("Deployment shop/infergate-web: no",)
    assert replica.standing == before


async def test_gateway_that_fails_keeps_none_from_being_looked_at(replica: _Replica) -> None:
    other = SERVICE.replace("web", "other")
    replica.provisioning.every = 0.3
    replica.server.busy[DEPLOYMENT] = [BUSY] * 100

    async with replica.running(WEB, state_of(name="other")):
        await replica.until(lambda: other in replica.server.objects)
        del replica.server.objects[other]
        await replica.until(lambda: other in replica.server.objects)


GOING: list[Json] = [
    {"ownerReferences": [{"kind": "Gateway", "name": "web", "uid": "u-0", "controller": True}]},
    {"deletionTimestamp": "2025-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("metadata", GOING)
async def test_object_that_goes_is_replaced_soon(replica: _Replica, metadata: Json) -> None:
    async with replica.running(WEB):
        await replica.until(lambda: DEPLOYMENT in replica.server.objects)
        replica.server.objects[DEPLOYMENT]["metadata"] |= metadata
        replica.provisioning.look_at(WEB.key)
        await replica.until(lambda: replica.standing is not None and replica.standing.problems != ())
        del replica.server.objects[DEPLOYMENT]  # nobody tells

        await replica.until(lambda: replica.standing is not None and replica.standing.problems == ())


async def test_gateway_that_comes_back_to_our_class_has_its_objects_again(replica: _Replica) -> None:
    async with replica.running(WEB):
        await replica.until(lambda: replica.standing is not None)
        before = {path: item["metadata"]["uid"] for path, item in replica.server.objects.items()}
        replica.provisioning.want(())
        assert replica.standing is None
        replica.provisioning.want((WEB,))
        await replica.until(lambda: replica.standing is not None)

    assert {path: item["metadata"]["uid"] for path, item in replica.server.objects.items()} == before
    assert replica.standing == Standing(Reached(("10.0.0.1",)), replicas=2)
    assert "DELETE" not in {method for method, path, _ in replica.server.writes if "services" in path}
