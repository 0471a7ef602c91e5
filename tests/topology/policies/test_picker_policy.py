"""PickerPolicies: to which pools they apply, and what is reported of them."""

from collections.abc import Callable

from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind, Plugin
from controller.plugins.types import DEFAULT_POLICY, AppliedPolicy
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.topology.build import build
from controller.topology.types import Topology

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]


def _pool(name: str = "gpu") -> str:
    return f"""
kind: InferencePool
metadata: {{name: {name}}}
spec: {{selector: {{matchLabels: {{app: llm}}}}, targetPorts: [{{number: 8000}}]}}
"""


def _policy(spec: str, *, name: str = "chat", created: str = "2026-01-01", targets: str = "[{name: gpu}]") -> str:
    more = f", {spec}" if spec else ""
    return f"""
kind: PickerPolicy
metadata: {{name: {name}, creationTimestamp: '{created}T00:00:00Z'}}
spec: {{targetRefs: {targets}{more}}}
"""


def _applied(topology: Topology, pool: str = "gpu") -> AppliedPolicy:
    [found] = [state.pool.policy for state in topology.pools if state.key.name == pool]
    return found


def _verdicts(topology: Topology, name: str = "chat") -> list[str]:
    [state] = [state for state in topology.policies if state.key.name == name]
    return [f"{target.name} {item.type}={item.reason}" for target, found in state.ancestors for item in found]


def _message(topology: Topology, name: str = "chat") -> str:
    [state] = [state for state in topology.policies if state.key.name == name]
    return state.ancestors[0][1][0].message


def test_pool_without_a_policy_has_the_default(build_all: Build) -> None:
    assert _applied(build_all(_pool())) is DEFAULT_POLICY


def test_policy_that_asks_for_nothing_is_the_default(build_all: Build) -> None:
    topology = build_all(_pool(), _policy(""))

    assert _applied(topology) is DEFAULT_POLICY
    assert _verdicts(topology) == ["gpu Accepted=Accepted"]


def test_policy_reaches_all_its_pools_and_no_other(build_all: Build) -> None:
    policy = _policy("fallbacks: 1", targets="[{name: b}, {name: a}]")

    topology = build_all(_pool("a"), _pool("b"), _pool("c"), policy)

    assert [_applied(topology, name).fallbacks for name in "abc"] == [1, 1, 0]
    assert _verdicts(topology) == ["b Accepted=Accepted", "a Accepted=Accepted"]


def test_oldest_policy_has_the_pool(build_all: Build) -> None:
    older = _policy("fallbacks: 1", name="z", created="2026-01-01")
    younger = _policy("fallbacks: 2", name="a", created="2026-01-02")

    topology = build_all(_pool(), younger, older)

    assert _applied(topology).fallbacks == 1
    assert _verdicts(topology, "a") == ["gpu Accepted=Conflicted"]
    assert _message(topology, "a") == "PickerPolicy shop/z, which is older, has InferencePool shop/gpu already"


def test_policies_of_one_age_are_ordered_by_name(build_all: Build) -> None:
    topology = build_all(_pool(), _policy("fallbacks: 2", name="b"), _policy("fallbacks: 1", name="a"))

    assert _applied(topology).fallbacks == 1


def test_policy_with_a_mistake_keeps_its_claim_and_the_pool_its_default(build_all: Build) -> None:
    broken = _policy("config: {plugins: [{type: nope}]}, explain: true")
    other = _policy("explain: true", name="other", created="2026-02-01")

    topology = build_all(_pool(), broken, other)

    assert _applied(topology) is DEFAULT_POLICY
    assert _verdicts(topology) == ["gpu Accepted=Invalid"]
    assert _message(topology).startswith('spec.config.plugins[0].type: found "nope"')
    assert _verdicts(topology, "other") == ["gpu Accepted=Conflicted"]


def test_number_of_problems_that_are_told_is_bounded(build_all: Build) -> None:
    plugins = ", ".join(f"{{type: nope-{number}}}" for number in range(40))

    topology = build_all(_pool(), _policy(f"config: {{plugins: [{plugins}]}}"))

    assert len(_message(topology)) <= 4096
    assert _message(topology).endswith("30 more problems")


def test_policy_without_a_target_says_so(build_all: Build) -> None:
    topology = build_all(_pool("other"), _policy("explain: true"))

    assert _verdicts(topology) == ["gpu Accepted=TargetNotFound"]
    assert _message(topology) == "InferencePool shop/gpu does not exist"


def test_pool_of_another_namespace_is_no_target(build_all: Build) -> None:
    pool = _pool().replace("{name: gpu}", "{name: gpu, namespace: far}")

    assert _verdicts(build_all(pool, _policy(""))) == ["gpu Accepted=TargetNotFound"]


def test_fields_without_effect_are_named(build_all: Build) -> None:
    config = "config: {plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 16}}]}"

    topology = build_all(_pool(), _policy(config))

    assert _verdicts(topology) == ["gpu Accepted=Accepted", "gpu infergate.dev/IgnoredFields=UnsupportedValue"]


def test_fallbacks_are_those_of_the_picker_unless_the_policy_says_otherwise(build_all: Build) -> None:
    config = "config: {plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 3}}]}"

    assert _applied(build_all(_pool(), _policy(config))).fallbacks == 2
    assert _applied(build_all(_pool(), _policy(f"{config}, fallbacks: 0"))).fallbacks == 0


def test_times_are_seconds(build_all: Build) -> None:
    found = _applied(build_all(_pool(), _policy("health: {firstByteTimeout: 1m30s, scrapeInterval: 250ms}"))).health

    assert (found.first_byte_timeout, found.scrape_interval, found.metrics_staleness_threshold) == (90.0, 0.25, None)


def test_plugin_of_the_catalogue_is_accepted(read: Read) -> None:
    snapshot = read(_pool(), _policy("config: {plugins: [{type: zone-scorer}]}"))
    catalogue = Catalogue((*BUILT_IN.plugins, Plugin("zone-scorer", (Kind.SCORER,), "By zone.")))

    found = build(snapshot, controller_name=CONTROLLER_NAME, catalogue=catalogue)

    assert _verdicts(found) == ["gpu Accepted=Accepted"]
    assert _verdicts(build(snapshot, controller_name=CONTROLLER_NAME)) == ["gpu Accepted=Invalid"]


def test_health_takes_effect(build_all: Build) -> None:
    topology = build_all(_pool(), _policy("health: {firstByteTimeout: 20s, scrapeInterval: 2s}"))

    assert _verdicts(topology) == ["gpu Accepted=Accepted"]


def test_fields_that_the_picker_does_not_heed_are_named(build_all: Build) -> None:
    topology = build_all(
        _pool(), _policy("config: {plugins: [{type: metrics-data-source, parameters: {scheme: https}}]}")
    )

    assert _verdicts(topology) == ["gpu Accepted=Accepted", "gpu infergate.dev/IgnoredFields=UnsupportedValue"]
