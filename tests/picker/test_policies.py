"""What a pool's policy makes of the picker's parts."""

import random
from collections.abc import Sequence

import pytest

from controller.picker.endpoints import Endpoint
from controller.picker.flow_control.settings import PoolPolicy
from controller.picker.inflight import InFlight
from controller.picker.policies import admissions, profile_of
from controller.picker.pools import PoolState, PoolTable
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.foreign import ForeignScorer
from controller.picker.scheduling.pickers.by_score import MaxScorePicker, WeightedRandomPicker
from controller.picker.scheduling.profile import Profile
from controller.picker.scheduling.scorers.expected_time import ExpectedTimeScorer
from controller.picker.scheduling.scorers.readings import QueueScorer
from controller.plugins.catalogue import BUILT_IN, SCHEDULING_KINDS, Catalogue, Kind, Plugin
from controller.plugins.parse import PickerConfig, parse
from controller.plugins.types import (
    DEFAULT_POLICY,
    Admission,
    AppliedPolicy,
    ConfiguredPlugin,
    FlowControlConfig,
    Scheduling,
)
from controller.pools import Pool, PoolEndpoint, pools_of

HEALTHY = ConfiguredPlugin("healthy-filter", "healthy-filter")
SCHEDULING = Scheduling(
    filters=(HEALTHY,),
    scorers=(ConfiguredPlugin("queue-scorer", "queue-scorer", weight=2.0),),
    picker=ConfiguredPlugin("weighted-random-picker", "weighted-random-picker"),
)


def _pool(policy: AppliedPolicy, *, is_prioritized: bool = False) -> PoolState:
    table = PoolTable(InFlight())
    pool = Pool("llm/gpu", (PoolEndpoint("a:1", "llm/a"),), policy=policy, is_prioritized=is_prioritized)
    table.apply(pools_of((pool,)))
    return table.pools["llm/gpu"]


def _profile(policy: AppliedPolicy) -> Profile:
    pool = _pool(policy)
    return profile_of(pool, Surroundings(staleness=3.0, rng=random.Random(1), memory=pool.memory, replicas=False))


def test_pool_without_a_policy_has_the_default_rule() -> None:
    ((scorer, weight),) = _profile(DEFAULT_POLICY).scorers
    assert isinstance(scorer, ExpectedTimeScorer)
    assert weight == 1.0


def test_plugins_of_a_policy_are_made_with_their_weights() -> None:
    profile = _profile(AppliedPolicy(scheduling=SCHEDULING))
    assert [(type(scorer), weight) for scorer, weight in profile.scorers] == [(QueueScorer, 2.0)]
    assert isinstance(profile.picker, WeightedRandomPicker)


def test_fallbacks_are_asked_of_the_default_rule_too() -> None:
    profile = _profile(AppliedPolicy(fallbacks=2))
    assert isinstance(profile.picker, MaxScorePicker)
    assert profile.picker.max_num_of_endpoints == 3
    assert isinstance(profile.scorers[0][0], ExpectedTimeScorer)


def test_fallbacks_are_asked_of_the_picker_of_a_profile() -> None:
    picker = _profile(AppliedPolicy(scheduling=SCHEDULING, fallbacks=1)).picker
    assert isinstance(picker, WeightedRandomPicker)
    assert picker.max_num_of_endpoints == 2


@pytest.mark.parametrize("type_", BUILT_IN.types(*SCHEDULING_KINDS))
def test_every_plugin_that_a_policy_may_name_is_made(type_: str, caplog: pytest.LogCaptureFixture) -> None:
    parameters = {"conditions": [{"metric": "waiting-queue", "maxValue": 5}]} if type_ == "utilization-filter" else {}
    plugin = {"type": type_, "parameters": parameters}
    profile = {"name": "default", "plugins": [{"pluginRef": type_}]}
    config = parse({"plugins": [plugin], "schedulingProfiles": [profile]})
    assert isinstance(config, PickerConfig)
    names = _profile(AppliedPolicy(scheduling=config.scheduling)).names
    assert type_ in {*names.filters, *names.scorers, names.picker}
    assert not caplog.records


@pytest.mark.parametrize("part", [ConfiguredPlugin("unheard-of", "x"), ConfiguredPlugin("queue-scorer", "x", {"y": 1})])
def test_policy_that_cannot_be_made_gives_way_to_the_default(
    part: ConfiguredPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    policy = AppliedPolicy(scheduling=Scheduling((HEALTHY,), (part,), SCHEDULING.picker))
    assert isinstance(_profile(policy).scorers[0][0], ExpectedTimeScorer)
    assert "policy cannot be used" in caplog.text


class ZoneScorer:
    """A plugin of a third party."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        return [1.0 for _ in endpoints]


def test_plugin_of_a_third_party_is_built_by_its_package() -> None:
    plugin = Plugin("zone-scorer", (Kind.SCORER,), "x", build=lambda parameters, surroundings: ZoneScorer())
    policy = AppliedPolicy(
        scheduling=Scheduling((HEALTHY,), (ConfiguredPlugin("zone-scorer", "zone", weight=3.0),), SCHEDULING.picker)
    )
    pool = _pool(policy)
    surroundings = Surroundings(staleness=3.0, rng=random.Random(1), memory=pool.memory, replicas=False)
    profile = profile_of(pool, surroundings, catalogue=Catalogue((*BUILT_IN.plugins, plugin)))
    ((scorer, weight),) = profile.scorers
    assert isinstance(scorer, ForeignScorer)
    assert (type(scorer.part), weight) == (ZoneScorer, 3.0)


def test_only_pools_that_ask_for_it_have_flow_control() -> None:
    asking = AppliedPolicy(admission=Admission(flow_control=FlowControlConfig(max_requests=7), default_priority=3))
    found = admissions([_pool(DEFAULT_POLICY), _pool(asking)])
    assert found["llm/gpu"].default_priority == 3
    assert admissions([_pool(DEFAULT_POLICY)]) == {}


def test_pool_has_flow_control_where_a_route_says_how_important_its_requests_are() -> None:
    assert admissions([_pool(DEFAULT_POLICY, is_prioritized=True)])["llm/gpu"] == PoolPolicy()
