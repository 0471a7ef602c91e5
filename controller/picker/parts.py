"""The parts of a picker that know and choose, without the sockets on which it is asked."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry

from controller.picker.base_models import BaseModels
from controller.picker.choosing import Answers, Choosing
from controller.picker.completions import Completions
from controller.picker.config import PickerSettings
from controller.picker.decisions import Decisions
from controller.picker.director import Director
from controller.picker.durations import PickDurations
from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.loads import EndpointLoad, load_of
from controller.picker.inflight import InFlight
from controller.picker.metrics import State, registry_of
from controller.picker.model_lists import PATH as MODELS_PATH
from controller.picker.model_lists import ModelLists
from controller.picker.pages import HttpPages
from controller.picker.policies import profile_of
from controller.picker.pools import PoolsFile, PoolsSource, PoolState, PoolTable
from controller.picker.replay.events import VERSION, Opened
from controller.picker.replay.recorder import Recorder, open_recorder
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import Profile
from controller.picker.scrape import Scraper
from controller.picker.watch import Watch
from controller.plugins.installed import installed
from controller.pools import PoolTls

A = TypeVar("A")

SourceOf = Callable[[PoolTable], PoolsSource]
"""Makes what fills a table with pools."""


@dataclass(frozen=True)
class Parts:
    """What a picker is made of."""

    state: State
    durations: PickDurations
    registry: CollectorRegistry
    scraper: Scraper
    models: ModelLists
    base_models: BaseModels
    recorder: Recorder | None

    def choosing(self, answers: Answers[A]) -> Choosing[A]:
        """What chooses, for one way of answering."""
        state = self.state
        return Choosing(
            answers,
            director=state.director,
            durations=self.durations,
            flow=state.flow,
            decisions=state.decisions,
            clock=state.clock,
            recorder=self.recorder,
        )


def parts_of(settings: PickerSettings, *, rng: random.Random, source_of: SourceOf | None = None) -> Parts:
    """The parts; pools come from the pools file unless `source_of` says otherwise.

    Raises OSError when the file of a trace cannot be opened.
    """
    clock = time.monotonic
    in_flight = InFlight()
    watch = Watch(scrape_interval=settings.scrape_interval, staleness=settings.staleness)
    table = PoolTable(in_flight, watch)
    catalogue = installed()

    def profile(pool: PoolState) -> Profile:
        surroundings = Surroundings(
            staleness=pool.watch.staleness, rng=rng, memory=pool.memory, replicas=settings.replicas
        )
        return profile_of(pool, surroundings, catalogue=catalogue)

    def loads(pool: str, now: float) -> Sequence[EndpointLoad]:
        known = table.pools.get(pool)
        if known is None:
            return ()
        staleness = known.watch.staleness
        return [load_of(endpoint, now=now, staleness=staleness) for endpoint in known.endpoints]

    later = asyncio.get_running_loop().call_later
    state = State(
        table=table,
        file=source_of(table) if source_of is not None else _file(settings, table),
        in_flight=in_flight,
        completions=Completions(in_flight),
        director=Director(table=table, in_flight=in_flight, profile_of=profile, clock=clock),
        flow=FlowController(loads=loads, tenants=Tenants(os.urandom(16)), clock=clock, later=later),
        decisions=Decisions(clock),
        clock=clock,
    )
    registry, durations = registry_of(state)

    def trust(address: str) -> PoolTls | None:
        return table.trusts.get(address)

    return Parts(
        state=state,
        durations=durations,
        registry=registry,
        scraper=Scraper(table=table, in_flight=in_flight, pages=HttpPages(trust=trust), clock=clock),
        models=ModelLists(
            table=table, pages=HttpPages(MODELS_PATH, accept="application/json", trust=trust), clock=clock
        ),
        base_models=BaseModels(),
        recorder=_recorder(settings, rng=rng, clock=clock),
    )


def _file(settings: PickerSettings, table: PoolTable) -> PoolsFile:
    assert settings.pools is not None  # the settings say so where there is no other source
    return PoolsFile(settings.pools, table)


def _recorder(settings: PickerSettings, *, rng: random.Random, clock: Callable[[], float]) -> Recorder | None:
    """What writes the trace, if one is asked for; ties are broken from here on as the trace says."""
    if settings.record is None:
        return None
    seed = rng.getrandbits(32)
    rng.seed(seed)
    opened = Opened(at=0.0, version=VERSION, staleness=settings.staleness, seed=seed, replicas=settings.replicas)
    return open_recorder(settings.record, limit=settings.record_limit, clock=clock, opened=opened)
