"""The plugins that a configuration declares, and what it means by the names of plugins elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from controller.plugins.catalogue import Catalogue, Kind, Plugin
from controller.plugins.problems import Location, Problem, near, problems_of, quoted
from controller.plugins.shape import EndpointPickerConfig, PluginSpec


@dataclass(frozen=True)
class Instance:
    """One plugin with its parameters."""

    plugin: Plugin
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)  # any: as the user wrote them, and valid


@dataclass(frozen=True)
class Declared:
    """Plugins by name."""

    instances: Mapping[str, Instance]
    """In the order of the document."""
    unusable: frozenset[str]
    """Names of plugins about which a problem was told already."""
    catalogue: Catalogue
    without_effect: tuple[str, ...]

    def lookup(
        self, name: str, location: Location, *, kinds: tuple[Kind, ...], problems: list[Problem]
    ) -> Instance | None:
        """The plugin of a name, which has one of these kinds. None after a problem was added, or earlier for its type.

        What takes no parameters to be of use may be named by its type without being declared.
        """
        if name in self.unusable:
            return None
        instance = self.instances.get(name)
        if instance is None:
            plugin = self.catalogue.by_name.get(name)
            if plugin is None or not any(kind in _IMPLIED for kind in plugin.kinds):
                accepted = self._accepted(kinds)
                problems.append(Problem(location, f"found {quoted(name)}, which is not among the plugins, {accepted}"))
                return None
            instance = Instance(plugin, name)
        if not any(kind in kinds for kind in instance.plugin.kinds):
            found = f"{instance.plugin.type}, which is of kind {' and '.join(instance.plugin.kinds)}"
            message = f"found {quoted(name)} of type {found}, {self._accepted(kinds)}"
            problems.append(Problem(location, message))
            return None
        return instance

    def _accepted(self, kinds: tuple[Kind, ...]) -> str:
        told = [kind for kind in kinds if kind is not Kind.NO_EFFECT]
        words = f"a plugin of kind {' or '.join(told)}" if told else "a plugin without effect"
        fit = [item.name for item in self.instances.values() if any(kind in kinds for kind in item.plugin.kinds)]
        if not fit and told and all(kind in _IMPLIED for kind in told):
            fit = [*self.catalogue.types(*told)]
        none = "" if self.unusable else ", and none is declared"
        return f"accepted is {words}: {', '.join(fit)}" if fit else f"accepted is {words}{none}"


_IMPLIED = frozenset({Kind.DETECTOR, Kind.FAIRNESS, Kind.ORDERING, Kind.LIMIT, Kind.NO_EFFECT})


def declared_in(shape: EndpointPickerConfig, *, catalogue: Catalogue, problems: list[Problem]) -> Declared:
    """The plugins of a configuration; those with a mistake are left out and their mistakes added to `problems`."""
    instances: dict[str, Instance] = {}
    unusable: set[str] = set()
    first: dict[str, int] = {}
    ignored: list[str] = []
    listed = False  # the types that there are, once for all unknown types
    for index, spec in enumerate(shape.plugins):
        name = spec.name or spec.type
        if first.setdefault(name, index) != index:
            place = ("plugins", index, "name" if spec.name else "type")
            message = f"found {quoted(name)}, which plugins[{first[name]}] has too, give one of them another name"
            problems.append(Problem(place, message))
            continue
        plugin = catalogue.by_name.get(spec.type)
        if plugin is None:
            problems.append(Problem(("plugins", index, "type"), _unknown(spec.type, catalogue, listed=listed)))
            listed = True
            unusable.add(name)
            continue
        wrong = _mistakes(spec, plugin=plugin)
        if wrong:
            problems += (problem.below("plugins", index, "parameters") for problem in wrong)
            unusable.add(name)
            continue
        parameters = spec.parameters or {}
        unused = parameters if Kind.NO_EFFECT in plugin.kinds else plugin.unused() & parameters.keys()
        ignored += (Problem(("plugins", index, "parameters", item), "").field for item in unused)
        instances[name] = Instance(plugin, name, parameters)
    return Declared(instances, frozenset(unusable), catalogue, tuple(ignored))


def _mistakes(spec: PluginSpec, *, plugin: Plugin) -> tuple[Problem, ...]:
    try:
        plugin.parameters.model_validate(spec.parameters or {})
    except ValidationError as error:
        return problems_of(error, model=plugin.parameters)
    return ()


def _unknown(type_: str, catalogue: Catalogue, *, listed: bool) -> str:
    if type_ in catalogue.broken:
        return f"found {quoted(type_)}, which cannot be used: {catalogue.broken[type_]}"
    told = catalogue.types(*(kind for kind in Kind if kind is not Kind.NO_EFFECT))
    there_are = "see above" if listed else f"there are: {', '.join(told)}"
    return f"found {quoted(type_)}, which is no type of plugin, {near(type_, catalogue.by_name)}{there_are}"
