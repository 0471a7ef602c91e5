"""From an EndpointPickerConfig as a user wrote it to what the picker does, or to everything that is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind
from controller.plugins.declared import Declared, declared_in
from controller.plugins.flow_control import flow_control_of
from controller.plugins.problems import Location, Problem, problems_of, quoted
from controller.plugins.scheduling import scheduling_of
from controller.plugins.shape import EndpointPickerConfig, Reference
from controller.plugins.types import DEFAULT_FLOW_CONTROL, FlowControlConfig, Scheduling

GATES: Final = (
    "flowControl",
    "dataLayer",
    "enableLegacyMetrics",
    "prepareDataPlugins",
    "haPopulateNonLeaderDatastore",
)
"""Feature gates of the field, of several versions, that ask for what is done anyway."""
_TRUE: Final = frozenset({"1", "t", "true"})  # as Go reads a truth value, in lower case


@dataclass(frozen=True)
class PickerConfig:
    """A configuration without a mistake."""

    scheduling: Scheduling | None = None
    """None: the default profile."""
    flow_control: FlowControlConfig = DEFAULT_FLOW_CONTROL
    without_effect: tuple[str, ...] = ()
    """Fields that ask for something that is not done, such as `plugins[0].parameters.lruCapacityPerServer`; sorted."""


def parse(config: object, *, catalogue: Catalogue = BUILT_IN) -> PickerConfig | tuple[Problem, ...]:
    """The configuration, or all that is wrong with it, in the order of the document; locations are relative to it.

    config: a mapping of EndpointPickerConfig's shape, or None for an empty one.
    """
    try:
        shape = EndpointPickerConfig.model_validate({} if config is None else config, by_alias=True)
    except ValidationError as error:
        return problems_of(error, model=EndpointPickerConfig)
    problems = [*_gates(shape)]
    plugins = declared_in(shape, catalogue=catalogue, problems=problems)
    scheduling = scheduling_of(shape, plugins=plugins, problems=problems)
    flow_control = flow_control_of(shape, plugins=plugins, problems=problems)
    _check_references(shape, plugins=plugins, problems=problems)
    if problems:
        return tuple(problems)
    unused = (*plugins.without_effect, *_weights(shape, plugins), *_former(shape))
    return PickerConfig(scheduling, flow_control, tuple(sorted(unused)))


def _gates(shape: EndpointPickerConfig) -> list[Problem]:
    found = []
    for index, gate in enumerate(shape.feature_gates):
        name, _, value = gate.partition("=")
        if name not in GATES:
            message = f"found {quoted(name)}, accepted is {' or '.join(sorted(GATES))}"
        elif value and value.strip().lower() not in _TRUE:
            message = f"found {quoted(gate)}, accepted is {name}: it cannot be turned off"
        else:
            continue
        found.append(Problem(("featureGates", index), message))
    return found


def _weights(shape: EndpointPickerConfig, plugins: Declared) -> Iterator[str]:
    """Weights of what is no scorer."""
    for number, profile in enumerate(shape.scheduling_profiles):
        for index, item in enumerate(profile.plugins):
            instance = plugins.instances.get(item.plugin_ref)
            if item.weight is not None and instance is not None and Kind.SCORER not in instance.plugin.kinds:
                yield f"schedulingProfiles[{number}].plugins[{index}].weight"


def _former(shape: EndpointPickerConfig) -> Iterator[str]:
    """A detector in the place of earlier versions, beside one in the place of later ones, which counts."""
    if shape.saturation_detector is not None and shape.flow_control and shape.flow_control.saturation_detector:
        yield "saturationDetector"


def _check_references(shape: EndpointPickerConfig, *, plugins: Declared, problems: list[Problem]) -> None:
    """References to plugins without effect, which still have to lead somewhere."""
    references: dict[Location, Reference] = {}
    for index, source in enumerate(shape.data_layer.sources if shape.data_layer else ()):
        place: Location = ("dataLayer", "sources", index)
        references[place] = source
        references |= {(*place, "extractors", number): item for number, item in enumerate(source.extractors)}
    for index, parser in enumerate(shape.request_handler.parsers if shape.request_handler else ()):
        references["requestHandler", "parsers", index] = parser
    if shape.parser is not None:
        references["parser",] = shape.parser
    for place, reference in references.items():
        plugins.lookup(reference.plugin_ref, (*place, "pluginRef"), kinds=(Kind.NO_EFFECT,), problems=problems)
