"""Which statuses the control plane has an opinion on. Instances and objects are those that a test says."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from controller.control_plane.loop import Loop
from controller.control_plane.provisioning import Provisioning
from controller.control_plane.publishing import Publishing
from controller.dataplane.instances import FORGOTTEN_AFTER
from controller.dataplane.manifests import ControlPlane, Json
from controller.errors import ApiMissing
from controller.provider.base import Change
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.status.types import StatusUpdate

from .conftest import Clock, FakeServer, Resources, gateway, said

EDGE = Key("gateway.networking.k8s.io", "Gateway", "default", "edge")
SERVICE: Json = {
    "metadata": {
        "name": "infergate-edge",
        "namespace": "default",
        "ownerReferences": [{"kind": "Gateway", "name": "edge", "uid": "u-edge", "controller": True}],
    },
    "spec": {"type": "LoadBalancer"},
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
}
CLASS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: infergate}
spec: {controllerName: infergate.dev/gateway-controller}
---
"""
PROGRAMMED = gateway().replace(
    "---", "status: {conditions: [{type: Programmed, status: 'True', reason: Programmed, message: ''}]}\n---"
)


@dataclass
class _Api:
    """Of a replica that does not lead. `may_answer` holds back what it is asked for."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json:
        assert method == "GET"
        await self.may_answer.wait()
        if path.endswith("/services/infergate-edge"):
            return SERVICE
        raise ApiMissing(404, "NotFound", path)


@dataclass
class _Replica:
    """A loop with one snapshot, and the statuses that it wants."""

    loop: Loop
    provisioning: Provisioning
    told: asyncio.Queue[dict[Key, StatusUpdate]]

    async def status(self) -> Json | None:
        """Of the Gateway, as it is wanted next; None where it is left as it is."""
        async with asyncio.timeout(5):
            found = (await self.told.get()).get(EDGE)
        return found.status if found else None

    @asynccontextmanager
    async def running(self, snapshot: Snapshot) -> AsyncIterator[None]:
        async def snapshots() -> AsyncIterator[tuple[Snapshot, Change]]:
            yield snapshot, Change((), (), 0.0)
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.provisioning.run()), group.create_task(self.loop.run(snapshots()))]
            yield
            for task in tasks:
                task.cancel()


@pytest.fixture
def api() -> _Api:
    return _Api()


@pytest.fixture
def replica(publishing: Publishing, api: _Api) -> _Replica:
    told: asyncio.Queue[dict[Key, StatusUpdate]] = asyncio.Queue()
    provisioning = Provisioning(
        api,
        lambda: ControlPlane("image:1", "https://control-plane", "PEM"),
        is_leader=lambda: False,
        on_change=lambda: loop.wake(),
    )
    loop = Loop(publishing, provisioning, lambda wanted: told.put_nowait({item.key: item for item in wanted}))
    return _Replica(loop, provisioning, told)


async def test_gateway_is_told_of_when_its_objects_were_looked_at(
    replica: _Replica, api: _Api, server: FakeServer, resources: Resources
) -> None:
    snapshot, _ = resources(CLASS, gateway())
    async with replica.running(snapshot):
        assert await replica.status() is None
        api.may_answer.set()
        status = await replica.status()

    assert status is not None
    assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]


async def test_programmed_gateway_stays_so_until_an_instance_had_time_to_speak(
    replica: _Replica, api: _Api, server: FakeServer, resources: Resources
) -> None:
    snapshot, _ = resources(CLASS, PROGRAMMED)
    api.may_answer.set()
    async with replica.running(snapshot):
        assert await replica.status() is None
        assert await replica.status() is None
        server.said["default/edge"] = (said("1", live="1"),)
        replica.loop.wake()
        status = await replica.status()

    assert status is not None
    assert _programmed(status) == "True"


async def test_silence_is_told_after_a_while(replica: _Replica, api: _Api, clock: Clock, resources: Resources) -> None:
    snapshot, _ = resources(CLASS, PROGRAMMED)
    api.may_answer.set()
    async with replica.running(snapshot):
        assert await replica.status() is None
        assert await replica.status() is None
        clock.now += FORGOTTEN_AFTER
        replica.loop.wake()
        status = await replica.status()

    assert status is not None
    assert _programmed(status) == "False"


async def test_pods_that_never_spoke_are_counted(
    replica: _Replica, api: _Api, server: FakeServer, resources: Resources
) -> None:
    snapshot, _ = resources(CLASS, gateway())
    api.may_answer.set()
    server.said["default/edge"] = (said("1", live="1"),)
    async with replica.running(snapshot):
        await replica.status()
        await replica.status()
        server.count = lambda gateway: 3  # type: ignore[method-assign]  # two asked, and told nothing
        replica.loop.wake()
        status = await replica.status()

    assert status is not None
    assert "of 3 instances" in _message(status)


def _message(status: Json) -> str:
    return next(str(item["message"]) for item in status["conditions"] if item["type"] == "Programmed")


def _programmed(status: Json) -> str:
    return next(str(item["status"]) for item in status["conditions"] if item["type"] == "Programmed")
