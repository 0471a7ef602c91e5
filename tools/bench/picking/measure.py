"""One run: a scenario under a policy with a seed, on pods and a gateway that are started for it and ended with it.

So no run finds a warm cache, an index that knows its prompts, or rates that were learned before.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from controller import compiled
from controller.pools import POOLS_FILE, Pools
from tools.bench.failures import CannotMeasure
from tools.bench.gateway import Gateway, gateway
from tools.bench.picking.figures import Figures, figures
from tools.bench.picking.load import Job, LoadGenerator, load_generator
from tools.bench.picking.pods import PodProcess, pods_of, running_pods
from tools.bench.picking.policies import Policy, scorers_of, write_resources
from tools.bench.picking.scenarios import SCENARIOS
from tools.bench.picking.shares import Lateness, Part, Shares, between, moment, strain
from tools.bench.processes import Role
from tools.bench.servers import free_ports

_TAKES_EFFECT_WITHIN: Final = 10.0


@dataclass(frozen=True)
class Length:
    """Of a run, in seconds."""

    seconds: float
    warm_up: float
    """Of them, in which nothing counts: caches fill, and sessions begin of which none ends yet."""
    patience: float
    """For the last answers. The slowest policies leave queues that take half a minute."""


FULL: Final = Length(seconds=34.0, warm_up=12.0, patience=60.0)
QUICK: Final = Length(seconds=6.0, warm_up=2.0, patience=10.0)


@dataclass(frozen=True)
class Plan:
    """What to run."""

    scenario: str
    policy: Policy
    seed: int


class Run(msgspec.Struct, frozen=True):
    """What a run found."""

    scenario: str
    policy: Policy
    seed: int
    version: str
    """Of the code that was run."""
    time: str
    """When it ended, in UTC."""
    seconds: float
    figures: Figures
    shares: Shares
    """While requests counted."""
    lateness: Lateness
    load_average: float
    """Of the minute before: what others do on the machine shows in it."""
    strain: tuple[str, ...]
    """Why the figures mean nothing; empty when they do."""
    compiled: str = ""
    """How many modules of the hot paths were compiled, of all of them; empty where a run did not tell."""


def measure(plan: Plan, *, length: Length, work: Path, version: str) -> Run:
    """Blocks for the length of the run and some seconds. `work` is a directory that does not exist.

    Raises CannotMeasure.
    """
    load_average = os.getloadavg()[0]
    port = free_ports(1)[0]
    directory = work / "resources"
    with running_pods(pods_of(SCENARIOS[plan.scenario], seed=plan.seed)) as pods:
        host = write_resources(directory, plan.policy, port=port, pods=pods.ports)
        job = Job(plan.scenario, plan.seed, length.seconds, length.patience, port, host)
        with gateway(directory, work=work / "gateway", port=port, host=host, path="/v1/models") as under_test:
            _wait_for_scorers(work / "gateway", scorers_of(plan.policy))
            with load_generator(job) as load:
                shares = _shares(under_test, pods, load, length)
                sent = load.sent()
    found = figures(sent.requests, warm_up=length.warm_up, patience=length.patience)
    if found is None:
        raise CannotMeasure(f"no request was sent after {length.warm_up:g} s")
    lateness = Lateness(pods=pods.lateness_p99, load=sent.lateness_p99)
    return Run(
        scenario=plan.scenario,
        policy=plan.policy,
        seed=plan.seed,
        version=version,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=length.seconds,
        figures=found,
        shares=shares,
        lateness=lateness,
        load_average=load_average,
        strain=strain(shares, lateness),
        compiled=compiled.available(os.environ),
    )


def _shares(under_test: Gateway, pods: PodProcess, load: LoadGenerator, length: Length) -> Shares:
    """Of the processors, from the end of the warm-up to the end of the run. Blocks until then."""
    began = time.monotonic()
    roles = under_test.pids()
    pids = {
        Part.PODS: (pods.pid,),
        Part.NGINX: roles[Role.NGINX_MASTER] + roles[Role.NGINX_WORKER],
        Part.PICKER: roles[Role.PICKER],
        Part.LOAD: (load.pid,),
    }
    time.sleep(max(0.0, began + length.warm_up - time.monotonic()))
    first = moment(pids)
    time.sleep(max(0.0, began + length.seconds - time.monotonic()))
    return between(first, moment(pids), processors=len(os.sched_getaffinity(0)))


def _wait_for_scorers(work: Path, wanted: Sequence[str]) -> None:
    """Until the picker has been told to use these, and no others; none are those of a pool without a policy.

    A policy that is ignored or refused would be measured as if it were the default. Raises CannotMeasure.
    """
    deadline = time.monotonic() + _TAKES_EFFECT_WITHIN
    found: tuple[str, ...] = ()
    while time.monotonic() < deadline:
        for path in work.rglob(POOLS_FILE):
            found = _scorers(path)
            if sorted(found) == sorted(wanted):
                return
        time.sleep(0.05)
    raise CannotMeasure(f"the picker was to use {', '.join(wanted) or 'its default'}, and was told {', '.join(found)}")


def _scorers(path: Path) -> tuple[str, ...]:
    pools = msgspec.json.decode(path.read_bytes(), type=Pools).pools
    return tuple(
        scorer.type for pool in pools if pool.policy.scheduling is not None for scorer in pool.policy.scheduling.scorers
    )
