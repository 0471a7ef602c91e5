"""The scheduling profile of a configuration.

Source: llm-d-router, pkg/epp/config/loader: names, weights and parts that are filled in. Other than there, a profile
without a scorer is scored by `expected-time-scorer` instead of at random, `healthy-filter` comes first unless it is
named, and a detector is a filter only where the profile names it.
"""

from typing import Final

import msgspec

from controller.plugins.catalogue import (
    DEFAULT_FILTER,
    DEFAULT_PICKER,
    DEFAULT_SCORER,
    SCHEDULING_KINDS,
    Kind,
)
from controller.plugins.declared import Declared, Instance
from controller.plugins.problems import Location, Problem, quoted
from controller.plugins.shape import EndpointPickerConfig
from controller.plugins.types import ConfiguredPlugin, Scheduling

_ALSO_ACCEPTED: Final = (*SCHEDULING_KINDS, Kind.NO_EFFECT)
_SCORELESS: Final = frozenset({"random-picker"})
"""Pickers that look at no scores."""


def scheduling_of(shape: EndpointPickerConfig, *, plugins: Declared, problems: list[Problem]) -> Scheduling | None:
    """The profile; None for the default one, and after problems were added."""
    profiles = shape.scheduling_profiles
    if len(profiles) > 1:
        message = f"found {len(profiles)} profiles, accepted is one"
        problems.append(Problem(("schedulingProfiles",), message))
        return None
    if not profiles:
        return _of_all(plugins, problems)
    parts = _Parts(problems)
    for index, item in enumerate(profiles[0].plugins):
        location = ("schedulingProfiles", 0, "plugins", index)
        instance = plugins.lookup(item.plugin_ref, (*location, "pluginRef"), kinds=_ALSO_ACCEPTED, problems=problems)
        if instance is not None:
            parts.add(instance, location=location, weight=item.weight)
    parts.fill_in_picker(plugins)
    return parts.scheduling()


def _of_all(plugins: Declared, problems: list[Problem]) -> Scheduling | None:
    """A profile of all filters, scorers and pickers that are declared."""
    parts = _Parts(problems)
    found = False
    for index, instance in enumerate(plugins.instances.values()):
        if Kind.DETECTOR in instance.plugin.kinds or not any(
            kind in SCHEDULING_KINDS for kind in instance.plugin.kinds
        ):
            continue
        found = True
        parts.add(instance, location=("plugins", index))
    return parts.scheduling() if found else None


class _Parts:
    """A profile that is put together."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._filters: list[ConfiguredPlugin] = []
        self._scorers: list[ConfiguredPlugin] = []
        self._pickers: list[ConfiguredPlugin] = []
        self._names: set[str] = set()

    def add(self, instance: Instance, *, location: Location, weight: float | None = None) -> None:
        if instance.name in self._names:
            self._problems.append(Problem(location, f"found {quoted(instance.name)} for the second time"))
            return
        self._names.add(instance.name)
        kinds = instance.plugin.kinds
        if Kind.SCORER in kinds:
            self._scorers.append(_configured(instance, weight=1.0 if weight is None else weight))
        if Kind.FILTER in kinds and _filters(instance):
            self._filters.append(_configured(instance))
        if Kind.PICKER in kinds:
            if self._pickers:
                message = (
                    f"found {quoted(instance.name)} beside {quoted(self._pickers[0].name)}, accepted is one picker"
                )
                self._problems.append(Problem(location, message))
                return
            self._pickers.append(_configured(instance))

    def fill_in_picker(self, plugins: Declared) -> None:
        """Without a picker it is the first that is declared."""
        declared = [part for part in plugins.instances.values() if Kind.PICKER in part.plugin.kinds]
        if declared and not self._pickers:
            self._pickers.append(_configured(declared[0]))

    def scheduling(self) -> Scheduling:
        picker = self._pickers[0] if self._pickers else ConfiguredPlugin(DEFAULT_PICKER, DEFAULT_PICKER)
        scorers = tuple(self._scorers)
        if not scorers and picker.type not in _SCORELESS:
            scorers = (ConfiguredPlugin(DEFAULT_SCORER, DEFAULT_SCORER),)
        filters = tuple(self._filters)
        if not any(part.type == DEFAULT_FILTER for part in filters):
            filters = (ConfiguredPlugin(DEFAULT_FILTER, DEFAULT_FILTER), *filters)
        return Scheduling(filters, scorers, picker)


def _filters(instance: Instance) -> bool:
    """Whether it is used as a filter: what is a scorer too only where it is asked to."""
    return Kind.SCORER not in instance.plugin.kinds or bool(instance.parameters.get("enableFiltering"))


def _configured(instance: Instance, *, weight: float = 1.0) -> ConfiguredPlugin:
    configured = ConfiguredPlugin(instance.plugin.type, instance.name, dict(instance.parameters))
    return configured if weight == 1 else msgspec.structs.replace(configured, weight=float(weight))
