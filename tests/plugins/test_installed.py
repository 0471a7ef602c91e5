"""Plugins of third parties, with the example as one of them."""

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller.plugins.catalogue import BUILT_IN, Kind, parameters_of
from controller.plugins.installed import GROUP, installed
from controller.plugins.parse import PickerConfig, parse
from controller.plugins.types import ConfiguredPlugin

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "plugins.md"

POLICY = {
    "plugins": [{"type": "queue-scorer"}, {"type": "zone-scorer", "parameters": {"header": "X-Rack"}}],
    "schedulingProfiles": [
        {"name": "default", "plugins": [{"pluginRef": "queue-scorer"}, {"pluginRef": "zone-scorer", "weight": 2}]}
    ],
}


@pytest.fixture
def _example_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an installer would leave behind: the module on the path, and the entry points of its project file."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    sys.modules.pop("zone_scorer", None)


@pytest.mark.usefixtures("_example_is_installed")
def test_installed_plugin_can_be_named_in_a_policy() -> None:
    catalogue = installed()

    found = parse(POLICY, catalogue=catalogue)

    assert isinstance(found, PickerConfig)
    assert found.scheduling is not None
    assert found.scheduling.scorers[1] == ConfiguredPlugin("zone-scorer", "zone-scorer", {"header": "X-Rack"}, 2.0)
    plugin = catalogue.by_name["zone-scorer"]
    assert (plugin.kinds, plugin.summary) == ((Kind.SCORER,), "Endpoints in the zone that the client names.")


@pytest.mark.usefixtures("_example_is_installed")
def test_installed_plugin_scores_endpoints() -> None:
    catalogue = installed()
    plugin = catalogue.by_name["zone-scorer"]
    parameters = parameters_of(ConfiguredPlugin("zone-scorer", "z", {"header": "X-Rack"}), catalogue=catalogue)
    assert plugin.build is not None

    scorer = plugin.build(parameters, None)

    request = SimpleNamespace(headers={b"x-rack": b"b"})
    endpoints = [SimpleNamespace(labels={"topology.kubernetes.io/zone": zone}) for zone in "ab"]
    assert scorer.score(request, endpoints, now=0.0) == [0.0, 1.0]  # type: ignore[attr-defined]  # made by the example


@pytest.mark.usefixtures("_example_is_installed")
def test_parameters_of_an_installed_plugin_are_checked() -> None:
    found = parse({"plugins": [{"type": "zone-scorer", "parameters": {"lable": "x"}}]}, catalogue=installed())

    assert isinstance(found, tuple)
    assert "did you mean label? there are: header, label" in str(found[0])


def test_example_is_what_the_documentation_shows() -> None:
    shown = DOCUMENTATION.read_text()

    assert (EXAMPLE / "zone_scorer.py").read_text() in shown
    assert "[project.entry-points" in shown


class Wrong:
    """Nothing of what a plugin needs."""


class WrongKind:
    type = "x"
    kind = "detector"


class WrongType:
    type = "y"


def _point(value: str, name: str = "x") -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}" if value.isidentifier() else value, GROUP)


BROKEN = [
    (lambda: [_point("missing_module:thing")], "ModuleNotFoundError"),
    (lambda: [_local(Wrong)], "AttributeError"),
    (lambda: [_local(WrongKind)], 'kind: found "detector", accepted is filter, scorer, picker'),
    (lambda: [_local(WrongType)], 'type: found "y"'),
]


class _Loaded(EntryPoint):
    """An entry point that leads to an object of this module."""

    def load(self) -> object:
        return {"Wrong": Wrong, "WrongKind": WrongKind, "WrongType": WrongType}[self.value]


def _local(found: type) -> EntryPoint:
    return _Loaded("x", found.__name__, GROUP)


@pytest.mark.parametrize(("points", "expected"), BROKEN)
def test_plugin_that_cannot_be_used_is_told_where_a_policy_names_it(points: object, expected: str) -> None:
    assert callable(points)
    catalogue = installed(points())

    found = parse({"plugins": [{"type": "x"}]}, catalogue=catalogue)

    assert isinstance(found, tuple)
    assert 'plugins[0].type: found "x", which cannot be used' in str(found[0])
    assert expected in str(found[0])


def test_built_in_plugin_stays_itself() -> None:
    catalogue = installed([_point("missing_module:thing", name="queue-scorer")])

    assert catalogue.by_name["queue-scorer"] is BUILT_IN.by_name["queue-scorer"]
    assert "one of Infergate's own" in catalogue.broken["queue-scorer"]


def test_type_that_two_packages_bring_is_of_neither() -> None:
    catalogue = installed([_local(Wrong), _local(Wrong)])

    assert "x" not in catalogue.by_name
    assert "two packages" in catalogue.broken["x"]
