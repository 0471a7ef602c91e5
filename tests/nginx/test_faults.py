"""What clients see under load while something fails, and that all is as before when it is well again."""

import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from controller.simulator.faults import NO_FAULT, Fault, FaultKind, FaultPaths
from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, Run, eventually, until
from tests.nginx.load import Load, steady_load
from tests.nginx.resources import Json, pool, route, rule, to_pool

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

PODS = ("a", "b", "c")
CLIENTS = 12
DURING = 40
"""Answers to new requests that are waited for while the fault lasts: about a second of the load."""
PROBES = 3
"""Requests that may meet an endpoint that fails, in this time: one for each pause."""
POLICY: Json = {
    "apiVersion": "infergate.dev/v1alpha1",
    "kind": "PickerPolicy",
    "metadata": {"name": "quick"},
    "spec": {
        "targetRefs": [{"name": "gpu"}],
        "health": {"firstByteTimeout": "1s", "scrapeInterval": "200ms", "metricsStalenessThreshold": "1s"},
    },
}
"""Finds in a second what takes half a minute by default."""


@dataclass(frozen=True)
class Case:
    """A fault of pods, and what is to be seen of it."""

    name: str
    fault: Fault
    shown: Json
    """What the picker shows of the pods once it noticed."""
    share: tuple[float, float] = (0.0, 0.0)
    """Bounds of the pods' share of the requests that are sent after that, beside the probes."""
    pods: tuple[str, ...] = ("b",)
    outcomes: frozenset[str] = field(default=frozenset({"whole"}))
    """What clients may see."""


METRICS = FaultPaths.METRICS
EVEN = (0.2, 0.5)
CASES = (
    Case("dies", Fault(kind=FaultKind.DIE), {"reason": "fails"}, outcomes=frozenset({"whole", "cut"})),
    Case("resets", Fault(kind=FaultKind.RESET), {"reason": "fails"}),
    Case("hangs", Fault(kind=FaultKind.HANG), {"reason": "fails"}),
    Case("freezes", Fault(kind=FaultKind.HANG, paths=FaultPaths.ALL), {"isPreferred": False}),
    Case("slows", Fault(kind=FaultKind.SLOW, factor=6), {"isPreferred": True}, share=(0.0, 0.2)),
    Case("errors", Fault(kind=FaultKind.ERROR), {"reason": "fails"}, outcomes=frozenset({"whole", "500"})),
    Case(
        "has-no-metrics",
        Fault(kind=FaultKind.ERROR, status=404, paths=METRICS),
        {"metrics": "missing", "isPreferred": True},
        share=EVEN,
    ),
    Case("hides-its-metrics", Fault(kind=FaultKind.HANG, paths=METRICS), {"reason": "reading too old"}),
    Case(
        "all-hide-their-metrics",
        Fault(kind=FaultKind.HANG, paths=METRICS),
        {"reason": "reading too old"},
        share=(1.0, 1.0),
        pods=PODS,
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    """A gateway that watches closely. New pods bring no reload into a test."""
    async with run(root, nginx, endpoints_delay=3600) as gateway:
        await gateway.apply("policy.yaml", POLICY)
        yield gateway


@asynccontextmanager
async def _serve(gateway: Gateway, *, mode: str = "FailClose") -> AsyncIterator[Simulation]:
    """Three pods that nobody knows yet, behind every path."""
    settings = [PodSettings(name=name, model="base") for name in PODS]
    async with await simulate(settings) as simulation:
        addresses = simulation.addresses.values()
        await gateway.apply("routes.yaml", pool("gpu", *addresses, mode=mode), route("all", rule(to_pool("gpu"))))
        await gateway.prefers("default/gpu", *addresses)
        yield simulation


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_fault_of_a_pod_under_load(gateway: Gateway, case: Case) -> None:
    async with _serve(gateway) as simulation, steady_load(gateway, clients=CLIENTS) as load:
        await _all_serve(load, since=0.0)
        struck = {simulation.addresses[name] for name in case.pods}
        for name in case.pods:
            await simulation.set_fault(name, case.fault)
        await eventually(lambda: _shows(gateway, struck, case.shown))
        noticed, before = time.monotonic(), _arrived(simulation)
        await until(lambda: load.served(since=noticed) >= DURING)
        arrived = _arrived(simulation) - before
        share = sum(arrived[name] for name in case.pods) / arrived.total()
        for name in case.pods:
            await simulation.set_fault(name, NO_FAULT)
        recovered = time.monotonic()
        await _all_serve(load, since=recovered)
    assert set(load.outcomes()) <= case.outcomes
    # What is cut was a stream under way at the pod that died.
    assert all(seen.is_streamed and seen.pod in case.pods for seen in load.sent if seen.outcome == "cut")
    assert load.outcomes()["500"] <= CLIENTS + PROBES
    least, most = case.share
    assert least - 0.001 <= share <= most + PROBES / DURING
    await _nothing_is_left(gateway)


@pytest.mark.parametrize(
    ("mode", "outcomes"), [("FailOpen", {"whole"}), ("FailClose", {"whole", "503 picker_unavailable"})]
)
async def test_picker_killed_under_load(gateway: Gateway, mode: str, outcomes: set[str]) -> None:
    async with _serve(gateway, mode=mode), steady_load(gateway, clients=CLIENTS) as load:
        await _all_serve(load, since=0.0)
        killed = gateway.picker_pids()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        before = time.monotonic()
        await until(lambda: gateway.picks_anew(killed))
        await _all_serve(load, since=before)
    assert set(load.outcomes()) == outcomes
    await _nothing_is_left(gateway)


def _arrived(simulation: Simulation) -> Counter[str]:
    """Requests that reached each pod."""
    return Counter({name: len(simulation.pod(name).arrivals) for name in PODS})


async def _all_serve(load: Load, *, since: float) -> None:
    """Waits until every pod has served requests that were sent after a moment."""
    await until(lambda: all(load.served(name, since=since) >= 3 for name in PODS), seconds=30)


async def _shows(gateway: Gateway, addresses: set[str], shown: Json) -> bool:
    """Whether the picker shows this of each of the endpoints."""
    (view,) = (await gateway.pools())["pools"]
    struck = [endpoint for endpoint in view["endpoints"] if endpoint["address"] in addresses]
    return all(endpoint[name] == value for endpoint in struck for name, value in shown.items())


async def _nothing_is_left(gateway: Gateway) -> None:
    """Waits until every count is zero, and every endpoint well."""

    async def is_at_rest() -> bool:
        view = await gateway.pools()
        endpoints = [endpoint for item in view.get("pools", ()) for endpoint in item["endpoints"]]
        counts = ("inFlight", "backlogTokens", "pause")
        return len(endpoints) == len(PODS) and not any(endpoint[name] for endpoint in endpoints for name in counts)

    await eventually(is_at_rest)
