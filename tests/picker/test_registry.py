"""What the registry lists, what the control plane accepts, and what the documentation says are the same."""

import inspect
from pathlib import Path

import pytest

from controller.picker.scheduling.registry import PLUGINS, Kind, Parameter
from controller.plugins.catalogue import BUILT_IN, SCHEDULING_KINDS, arguments_of

from .conftest import Picker

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "picker.md"


def row(name: str) -> str:
    """A plugin's row in the documentation, without its last column."""
    plugin = PLUGINS[name]
    kinds = ", ".join(sorted(plugin.kinds))
    return f"| `{name}` | {kinds} | {', '.join(shown(one) for one in plugin.parameters) or '-'} |"


def shown(parameter: Parameter) -> str:
    default = parameter.default
    if isinstance(default, bool):
        return f"`{parameter.name}` {str(default).lower()}"
    if isinstance(default, int | float | str):
        return f"`{parameter.name}` {default:g}" if isinstance(default, float) else f"`{parameter.name}` {default}"
    return f"`{parameter.name}`"


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_is_documented_with_its_parameters(name: str) -> None:
    assert row(name) in DOCUMENTATION.read_text()


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_takes_what_the_control_plane_accepts(picker: Picker, name: str) -> None:
    listed = BUILT_IN.by_name[name]
    kinds = {kind.value for kind in listed.kinds if kind in SCHEDULING_KINDS}
    assert kinds == {kind.value for kind in PLUGINS[name].kinds}
    if any(field.is_required() for field in listed.parameters.model_fields.values()):
        return
    arguments = arguments_of(listed.parameters.model_validate({}))
    defaults = {one.name: one.default for one in PLUGINS[name].parameters}
    assert arguments.keys() == defaults.keys()
    for argument, value in arguments.items():
        if defaults[argument] is not inspect.Parameter.empty and isinstance(value, bool | int | float | str):
            assert defaults[argument] == value
    picker.serve("a")
    PLUGINS[name].make(picker.surroundings(picker.table.pools["llm/gpu"]), **arguments)


def test_picker_has_every_plugin_that_a_profile_may_name() -> None:
    named = BUILT_IN.types(*SCHEDULING_KINDS)
    assert set(named) == set(PLUGINS)


def test_kinds_follow_from_what_a_plugin_can_do() -> None:
    assert PLUGINS["context-length-aware"].kinds == {Kind.FILTER, Kind.SCORER}
    assert PLUGINS["random-picker"].kinds == {Kind.PICKER}
    assert PLUGINS["load-aware-scorer"].parameters == (Parameter("threshold", "int", 128),)
