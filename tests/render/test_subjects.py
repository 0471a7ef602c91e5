"""What a line of a rendered file is traced to."""

import json
from pathlib import Path

from controller.bundle import Bundle
from controller.provider.file import read
from controller.reconcile import topology_of
from controller.render.files import RenderSettings, render, trace
from controller.translate.build import translate
from tests.nginx.resources import gateway, header, listener, route, rule

NAMES = [f"{'a' * 200}-{number}" for number in range(40)]
"""Together they take more than the 4 KB that nginx has for a line of a comment."""


def _bundle(directory: Path) -> Bundle:
    routes = [
        route(name, rule(matches=[{"headers": [header("x-tenant", name[-3:])]}], backendRefs=[])) for name in NAMES
    ]
    text = "\n---\n".join(json.dumps(item) for item in (gateway(listener(8080)), *routes))
    (directory / "input.yaml").write_text(text)
    topology = topology_of(read(directory))
    config = translate(topology, name="local", gateways={item.key for item in topology.gateways})
    return render(config, RenderSettings())


def _lines(bundle: Bundle, path: str) -> list[str]:
    return next(file.content for file in bundle.files if file.path == path).decode().splitlines()


def test_no_comment_is_longer_than_nginx_reads(tmp_path: Path) -> None:
    lines = _lines(_bundle(tmp_path), "rules.conf")
    assert any(name in line for name in NAMES for line in lines)
    assert max(map(len, lines)) < 4096


def test_map_is_traced_to_every_route_that_uses_it(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    opening = next(number for number, line in enumerate(_lines(bundle, "rules.conf"), 1) if line.startswith("map "))
    assert {subject.key.name for subject in trace(bundle, path="rules.conf", line=opening)} == set(NAMES)


def test_line_of_a_map_is_traced_to_its_route_alone(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    number = next(number for number, line in enumerate(_lines(bundle, "rules.conf"), 1) if line.startswith('    "'))
    assert [subject.key.name for subject in trace(bundle, path="rules.conf", line=number)] == [NAMES[0]]
