"""What a PickerPolicy asks for, as the parts of this picker that do it."""

import logging
from collections.abc import Iterable
from functools import partial

import msgspec
from pydantic import ValidationError

from controller.picker.flow_control.settings import PoolPolicy, UtilizationDetectorRef
from controller.picker.pools import PoolState
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import InvalidProfile, PluginSpec, Profile, build_profile, default_profile
from controller.picker.watch import Watch
from controller.plugins.catalogue import BUILT_IN, Catalogue, arguments_of, parameters_of
from controller.plugins.types import DEFAULT_ADMISSION, ConfiguredPlugin

log = logging.getLogger(__name__)

_MOST_ENDPOINTS = "max_num_of_endpoints"


def profile_of(pool: PoolState, surroundings: Surroundings, *, catalogue: Catalogue = BUILT_IN) -> Profile:
    """The profile of a pool.

    One that cannot be made, because the control plane has other plugins than this picker, is replaced by the default.
    """
    scheduling, fallbacks = pool.policy.scheduling, pool.policy.fallbacks
    if scheduling is None and not fallbacks:
        return default_profile(surroundings)
    try:
        if scheduling is None:
            picker = PluginSpec("max-score-picker", parameters={_MOST_ENDPOINTS: 1 + fallbacks})
            return build_profile((picker,), ((picker.type, 1.0),), surroundings)
        parts = (*scheduling.filters, *scheduling.scorers, scheduling.picker)
        specs = [_spec(part, catalogue=catalogue) for part in parts]
        if fallbacks:
            specs[-1] = PluginSpec(
                specs[-1].type, specs[-1].name, {**specs[-1].parameters, _MOST_ENDPOINTS: 1 + fallbacks}
            )
        return build_profile(specs, [(part.name, part.weight) for part in parts], surroundings)
    except (InvalidProfile, KeyError, ValueError) as problem:
        log.error("policy cannot be used, the default is", extra={"pool": pool.name, "problem": str(problem)})
        return default_profile(surroundings)


def admissions(pools: Iterable[PoolState]) -> dict[str, PoolPolicy]:
    """The flow control of each pool with a policy that asks for one, or whose requests differ in importance, by pool.

    The others admit everybody.
    """
    found: dict[str, PoolPolicy] = {}
    for pool in pools:
        if pool.policy.admission == DEFAULT_ADMISSION and not pool.is_prioritized:
            continue
        try:
            policy = PoolPolicy.model_validate(msgspec.to_builtins(pool.policy.admission))
            found[pool.name] = _in_step(policy, watch=pool.watch)
        except ValidationError as problem:
            log.error("flow control cannot be used", extra={"pool": pool.name, "problem": str(problem)})
    return found


def _in_step(policy: PoolPolicy, *, watch: Watch) -> PoolPolicy:
    """A policy whose detector believes a reading as long as it says, or the pool does; at least until the next."""
    flow_control = policy.flow_control
    detector = flow_control.saturation_detector
    if not isinstance(detector, UtilizationDetectorRef):
        return policy
    parameters = detector.parameters
    is_set = "metrics_staleness_threshold" in parameters.model_fields_set
    threshold = parameters.metrics_staleness_threshold if is_set else watch.staleness
    parameters = parameters.model_copy(update={"metrics_staleness_threshold": max(threshold, watch.scrape_interval)})
    detector = detector.model_copy(update={"parameters": parameters})
    return policy.model_copy(update={"flow_control": flow_control.model_copy(update={"saturation_detector": detector})})


def _spec(part: ConfiguredPlugin, *, catalogue: Catalogue) -> PluginSpec:
    parameters = parameters_of(part, catalogue=catalogue)
    build = catalogue.by_name[part.type].build
    if build is not None:
        return PluginSpec(part.type, part.name, build=partial(build, parameters))
    return PluginSpec(part.type, part.name, arguments_of(parameters))
