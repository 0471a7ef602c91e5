"""The cluster that KUBECONFIG names, with Infergate installed, a Gateway, and a backend that answers."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from controller.errors import ApiConflict, ApiError, ApiMissing
from controller.kube import MERGE, Api, Json, configuration
from tools.bench.cluster import objects
from tools.bench.failures import CannotMeasure

Item = TypeVar("Item")

SYSTEM: Final = "infergate-system"
"""Namespace of the control plane."""
_CHART: Final = Path(__file__).parents[3] / "charts/infergate"
_CONCURRENCY: Final = 16
"""Writes at once: more only wait in the API server when it shares two processors."""
_PATIENCE: Final = 90.0
"""Seconds for anything to come up."""
_PAUSE: Final = 0.2
"""Seconds between two looks at what is to come up."""
_PLURALS: Final = {
    "Namespace": "namespaces",
    "Node": "nodes",
    "Pod": "pods",
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "Gateway": "gateways",
    "HTTPRoute": "httproutes",
    "InferencePool": "inferencepools",
}


@dataclass(frozen=True)
class World:
    """A cluster in which the Gateway has an address."""

    api: Api
    backend: str
    """IP address of the echo pod."""
    address: str
    """IP address of the Gateway."""

    async def create(self, made: Iterable[Json]) -> None:
        """Creates objects, some at once, and leaves those alone that are there."""
        await _each(made, lambda one: create(self.api, one))

    async def apply(self, one: Json) -> None:
        """Changes one object."""
        path = f"{collection_of(one)}/{one['metadata']['name']}"
        await self.api.request("PATCH", path, one, query={"fieldManager": "bench", "force": "true"})

    async def set_pod_statuses(self, numbers: Sequence[int]) -> None:
        async def write(number: int) -> None:
            path = f"/api/v1/namespaces/{objects.HOME}/pods/llm-{number}/status"
            await self.api.request("PATCH", path, objects.pod_status(number), patch=MERGE)

        await _each(numbers, write)

    async def leader(self) -> str:
        """Name of the control plane's pod that leads. Raises CannotMeasure when none does."""
        found = await self.api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases")
        for lease in found.get("items") or ():
            if holder := (lease.get("spec") or {}).get("holderIdentity"):
                return str(holder)
        raise CannotMeasure("no replica of the control plane leads")


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Installs the chart with helm when there is no control plane. Raises CannotMeasure."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        raise CannotMeasure("KUBECONFIG names no cluster")
    async with Api(await configuration(Path(kubeconfig))) as api:
        try:
            await _install(api)
            for one in (objects.namespace(objects.HOME), objects.echo(), objects.gateway()):
                await create(api, one)
            pod = f"{collection_of(objects.echo())}/echo"
            backend = await _appears("the echo pod", lambda: _pod_address(api, pod))
            gateway = f"{collection_of(objects.gateway())}/{objects.GATEWAY}"
            address = await _appears("the Gateway", lambda: _gateway_address(api, gateway))
            yield World(api, backend, address)
        except ApiError as problem:
            raise CannotMeasure(str(problem)) from problem


def collection_of(one: Json) -> str:
    """The API's path of all objects of the kind and namespace of this one."""
    version, kind = str(one["apiVersion"]), str(one["kind"])
    space = one["metadata"].get("namespace")
    within = f"/namespaces/{space}" if space else ""
    return f"{'/apis' if '/' in version else '/api'}/{version}{within}/{_PLURALS[kind]}"


async def create(api: Api, one: Json) -> None:
    """Creates an object that is not there yet."""
    try:
        await api.request("POST", collection_of(one), one)
    except ApiConflict as problem:
        if problem.reason != "AlreadyExists":
            raise


async def _each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    waiting = iter(list(items))

    async def worker() -> None:
        for item in waiting:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(_CONCURRENCY)))


async def _install(api: Api) -> None:
    try:
        await api.request("GET", f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/infergate")
    except ApiMissing:
        command = ("helm", "install", "infergate", str(_CHART), "--namespace", SYSTEM, "--create-namespace", "--wait")
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(f"helm: {done.stderr.strip()}") from None


async def _appears(what: str, look: Callable[[], Awaitable[str]]) -> str:
    """Raises CannotMeasure when it takes too long."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while not (found := await look()):  # noqa: ASYNC110  # the other side is another machine
                await asyncio.sleep(_PAUSE)
            return found
    except TimeoutError:
        raise CannotMeasure(f"{what} has no address after {_PATIENCE:g} s") from None


async def _pod_address(api: Api, path: str) -> str:
    status = (await api.request("GET", path)).get("status") or {}
    return str(status.get("podIP") or "")


async def _gateway_address(api: Api, path: str) -> str:
    status = (await api.request("GET", path)).get("status") or {}
    is_programmed = any(
        condition["type"] == "Programmed" and condition["status"] == "True"
        for condition in status.get("conditions") or ()
    )
    addresses = status.get("addresses") or ()
    return str(addresses[0]["value"]) if is_programmed and addresses else ""
