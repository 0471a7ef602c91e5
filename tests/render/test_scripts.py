"""Which scripts a configuration imports: a request pays for each of them, so none that nothing names."""

import re
from pathlib import Path

import pytest

from controller.ir.types import GatewayConfig
from controller.provider.file import read
from controller.render.environment import files_directory
from controller.render.files import RenderSettings, render
from controller.render.scripts import needed_scripts
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.topology.build import build
from controller.topology.sharing import shared
from controller.translate.build import translate

CASES = Path(__file__).parent.parent / "cases"
ROOT = files_directory() / "nginx"
ALWAYS = {"feed", "usage"}
"""Every HTTP server has the locations that send picked requests on."""


def _files(name: str) -> dict[str, str]:
    snapshot = read(CASES / name / "input.yaml")
    topology = shared(build(snapshot, controller_name=CONTROLLER_NAME), snapshot=snapshot)
    config = translate(topology, name="local", gateways={item.key for item in topology.gateways})
    return _text_of(config)


def _text_of(config: GatewayConfig) -> dict[str, str]:
    return {file.path: file.content.decode() for file in render(config, RenderSettings()).files if not file.secret}


def _imported(files: dict[str, str]) -> set[str]:
    return set(re.findall(r"include scripts/(\w+)\.conf;", files["nginx.conf"]))


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("fail-open-pool", set()),
        ("service-of-http2", set()),
        ("only-locations-with-a-model-read-it", {"models"}),
        ("rewrite-of-a-pool", {"deadlines", "models", "rewrites"}),
        ("timeouts-of-a-rule", {"deadlines"}),
    ],
)
def test_imported_is_what_is_named(case: str, more: set[str]) -> None:
    assert _imported(_files(case)) == ALWAYS | more


def test_nothing_is_imported_without_a_server() -> None:
    assert _imported(_text_of(GatewayConfig(name="none", servers=(), upstreams=(), pools=()))) == set()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CASES.glob("*/input.yaml")))
def test_imported_is_all_that_is_used(name: str) -> None:
    files = _files(name)
    used = _used(files, "nginx.conf")
    declared = {path.stem: path.read_text() for path in ROOT.glob("scripts/*.conf")}
    of_module = {
        module: script for script, text in declared.items() for module in re.findall(r"js_import (\w+) ", text)
    }
    of_variable = {each: script for script, text in declared.items() for each in re.findall(r"js_set \$(\w+) ", text)}
    functions = re.findall(r"^\s*js_\w+ (\w+)\.\w+", used, re.MULTILINE)
    variables = re.findall(r"\$\{?(\w+)", used)
    needed = {of_module[each] for each in functions if each in of_module}
    needed |= {of_variable[each] for each in variables if each in of_variable}
    assert needed <= _imported(files)


def _used(files: dict[str, str], path: str) -> str:
    """A file with all that it includes, but for the scripts."""
    lines = [line for line in files[path].splitlines() if not line.lstrip().startswith("#")]
    found = []
    for line in lines:
        included = re.fullmatch(r"\s*include (?!scripts/)([\w./]+);", line)
        found.append(_used(files, included[1]) if included else line)
    return "\n".join(found)


def test_comment_names_nothing() -> None:
    assert needed_scripts([b"include proxy/try.conf;"]) == ()
    assert needed_scripts([b"    include proxy/rewritten.conf;"]) == ("rewrites",)
    assert needed_scripts([b'sticky "unix:x_${infergate_socket_name}.sock:"']) == ("paths",)
