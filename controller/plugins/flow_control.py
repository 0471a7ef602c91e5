"""The queues of a configuration."""

from typing import Any, Final

from pydantic import ValidationError

from controller.plugins.catalogue import DEFAULT_DETECTOR, DEFAULT_LIMIT, Kind
from controller.plugins.declared import Declared
from controller.plugins.parameters import UtilizationDetector
from controller.plugins.problems import Location, Problem, problems_of, quoted
from controller.plugins.scalars import amount, seconds
from controller.plugins.shape import Band, EndpointPickerConfig, FlowControl, OldDetector, PriorityBand
from controller.plugins.types import (
    DEFAULT_FLOW_CONTROL,
    BandConfig,
    DetectorConfig,
    FlowControlConfig,
    PriorityBandConfig,
)

LONGEST_WAIT: Final = 80.0
"""Seconds; NGINX waits 90 for the answer to a pick, and takes a longer wait for a dead picker."""
MOST_REQUESTS: Final = 100_000
"""That may wait in one band or in all: about 100 MB of the picker's memory."""


_AS_ASKED: Final = FlowControlConfig(saturation_detector=DetectorConfig(DEFAULT_DETECTOR))
"""All as by default, but said: a pool has queues where its policy says something of them."""


def flow_control_of(shape: EndpointPickerConfig, *, plugins: Declared, problems: list[Problem]) -> FlowControlConfig:
    """What the user set of the queues; mistakes are added to `problems`."""
    reader = _Reader(plugins, problems)
    asked = shape.flow_control or FlowControl()
    place = ("flowControl",)
    if asked.enable_eviction:
        message = "found true, accepted is false: a request that a model server has is not taken back"
        problems.append(Problem((*place, "enableEviction"), message))
    ceiling = reader.ceiling(asked, place)
    found = FlowControlConfig(
        max_bytes=reader.amount(asked.max_bytes),
        max_requests=reader.requests(asked.max_requests, (*place, "maxRequests")),
        default_request_ttl=reader.wait(asked.default_request_ttl, (*place, "defaultRequestTTL")),
        no_endpoint_request_ttl=reader.wait(asked.no_endpoint_request_ttl, (*place, "noEndpointRequestTTL")),
        default_priority_band=reader.band(asked.default_priority_band, (*place, "defaultPriorityBand"), ceiling),
        default_negative_priority_band=reader.band(
            asked.default_negative_priority_band, (*place, "defaultNegativePriorityBand"), ceiling
        ),
        priority_bands=tuple(
            sorted(
                (
                    reader.priority_band(band, (*place, "priorityBands", index))
                    for index, band in enumerate(asked.priority_bands)
                ),
                key=lambda band: -band.priority,
            )
        ),
        saturation_detector=reader.detector(shape),
    )
    if found != DEFAULT_FLOW_CONTROL:
        return found
    return _AS_ASKED if _is_gate_open(shape) else DEFAULT_FLOW_CONTROL


def _is_gate_open(shape: EndpointPickerConfig) -> bool:
    """Whether the feature gate of the queues is named; one that says false is a mistake."""
    return any(gate.partition("=")[0] == "flowControl" for gate in shape.feature_gates)


class _Reader:
    """Reads fields and collects what is wrong with them."""

    def __init__(self, plugins: Declared, problems: list[Problem]) -> None:
        self._plugins = plugins
        self._problems = problems

    def amount(self, value: int | str | None) -> int | None:
        return None if value is None else amount(value)

    def requests(self, value: int | str | None, location: Location) -> int | None:
        found = self.amount(value)
        if found is not None and found > MOST_REQUESTS:
            accepted = f"accepted is a number from 0 to {MOST_REQUESTS}"
            self._problems.append(Problem(location, f"found {quoted(value)}, {accepted}"))
        return found

    def wait(self, value: str | None, location: Location) -> float | None:
        if value is None:
            return None
        found = seconds(value)
        if found > LONGEST_WAIT:
            message = f"found {quoted(value)}, accepted is at most {LONGEST_WAIT:g}s, which NGINX waits for a pick"
            self._problems.append(Problem(location, message))
        return found

    def ceiling(self, asked: FlowControl, place: Location) -> float | None:
        """Share of the capacity that a limit policy gives to bands that have no ceiling of their own."""
        reference = asked.usage_limit_policy_plugin_ref
        if reference is None:
            if DEFAULT_LIMIT not in self._plugins.instances:
                return None
            reference = DEFAULT_LIMIT
        location = (*place, "usageLimitPolicyPluginRef")
        found = self._plugins.lookup(reference, location, kinds=(Kind.LIMIT,), problems=self._problems)
        return None if found is None else found.parameters.get("threshold")

    def band(self, asked: Band | None, location: Location, ceiling: float | None) -> BandConfig | None:
        if asked is None:
            return None if ceiling is None else BandConfig(usage_ceiling=ceiling)
        fields = self._fields(asked, location)
        if ceiling is not None and asked.usage_ceiling is None:
            fields["usage_ceiling"] = ceiling
        return BandConfig(**fields)

    def priority_band(self, asked: PriorityBand, location: Location) -> PriorityBandConfig:
        return PriorityBandConfig(priority=asked.priority, **self._fields(asked, location))

    def _fields(self, asked: Band, location: Location) -> dict[str, Any]:  # any: values of several fields
        # A band is always bounded, and 0 is as if nothing was set. Source: llm-d-router, flowcontrol/registry.
        return {
            "max_bytes": self.amount(asked.max_bytes) or None,
            "max_requests": self.requests(asked.max_requests, (*location, "maxRequests")) or None,
            "fairness_policy_ref": self._type(
                asked.fairness_policy_ref, (*location, "fairnessPolicyRef"), Kind.FAIRNESS
            ),
            "ordering_policy_ref": self._type(
                asked.ordering_policy_ref, (*location, "orderingPolicyRef"), Kind.ORDERING
            ),
            "usage_ceiling": asked.usage_ceiling,
        }

    def _type(self, reference: str | None, location: Location, kind: Kind) -> str | None:
        if reference is None:
            return None
        found = self._plugins.lookup(reference, location, kinds=(kind,), problems=self._problems)
        return None if found is None else found.plugin.type

    def detector(self, shape: EndpointPickerConfig) -> DetectorConfig | None:
        """The detector from where it stands, else from where it once stood."""
        now = shape.flow_control.saturation_detector if shape.flow_control else None
        old = shape.saturation_detector
        if now is not None:
            old = None
        asked, place = (now, ("flowControl", "saturationDetector")) if now else (old, ("saturationDetector",))
        if asked is None:
            return self._declared_detector(shape)
        inline = self._in_place(old, place) if old else {}
        if inline and old is not None and old.plugin_ref is not None:
            message = "found beside parameters in place, accepted is one of them"
            self._problems.append(Problem((*place, "pluginRef"), message))
            return None
        reference = asked.plugin_ref or DEFAULT_DETECTOR
        found = self._plugins.lookup(reference, (*place, "pluginRef"), kinds=(Kind.DETECTOR,), problems=self._problems)
        return None if found is None else DetectorConfig(found.plugin.type, inline or dict(found.parameters))

    def _declared_detector(self, shape: EndpointPickerConfig) -> DetectorConfig | None:
        """The default detector with parameters of its own, which needs no reference.

        One that the profile filters by says nothing of queues that nobody asked for.
        """
        declared = self._plugins.instances.get(DEFAULT_DETECTOR)
        if declared is None or Kind.DETECTOR not in declared.plugin.kinds or not declared.parameters:
            return None
        is_filter = any(
            item.plugin_ref == DEFAULT_DETECTOR for profile in shape.scheduling_profiles for item in profile.plugins
        )
        if is_filter and shape.flow_control is None and not _is_gate_open(shape):
            return None
        return DetectorConfig(declared.plugin.type, dict(declared.parameters))

    def _in_place(self, old: OldDetector, place: Location) -> dict[str, Any]:  # any: as written
        found = old.model_dump(mode="json", exclude_none=True, exclude={"plugin_ref"})
        try:
            UtilizationDetector.model_validate(found)
        except ValidationError as error:
            self._problems += (item.below(*place) for item in problems_of(error, model=UtilizationDetector))
        return found
