"""Which headers of backends a server hides, so that its locations need not."""

import json
from pathlib import Path

import pytest

from controller.provider.file import read
from controller.reconcile import topology_of
from controller.render.files import RenderSettings, render
from controller.render.memory import Memory
from controller.translate.build import translate
from tests.nginx.resources import (
    Json,
    gateway,
    header,
    listener,
    pool,
    response_headers,
    route,
    rule,
    service,
    to_pool,
    to_service,
)

SETS = response_headers(set=[header("X-Team", "a")])


def _file(directory: Path, *rules: Json, memory: Memory | None = None) -> str:
    objects = (gateway(listener(8080)), *service("a", "127.0.0.1:1"), *pool("b", "127.0.0.1:2"), route("r", *rules))
    (directory / "input.yaml").write_text("\n---\n".join(map(json.dumps, objects)))
    topology = topology_of(read(directory))
    config = translate(topology, name="local", gateways={item.key for item in topology.gateways})
    files = render(config, RenderSettings(), memory=memory).files
    return next(file.content for file in files if file.path == "port_8080.conf").decode()


@pytest.mark.parametrize(
    ("setting", "plain", "lists"),
    [
        (5, 1, 2),  # of the server, and of the location `= /plain-0` and that of what is below
        (1, 5, 2),  # of the two locations of the rule
        (0, 2, 0),
    ],
)
def test_server_hides_what_most_of_its_rules_do(tmp_path: Path, setting: int, plain: int, lists: int) -> None:
    rules = [rule(to_service("a"), path=f"/set-{number}", filters=[SETS]) for number in range(setting)]
    rules += [rule(to_service("a"), path=f"/plain-{number}") for number in range(plain)]

    text = _file(tmp_path, *rules)

    assert text.count("proxy_hide_header x-infergate-tried;") == lists + (setting > plain)
    assert text.count("proxy_hide_header x-team;") == (1 if setting > plain else 2 * setting)


def test_server_that_leads_to_a_pool_hides_for_none(tmp_path: Path) -> None:
    rules = [rule(to_service("a"), path=f"/set-{number}", filters=[SETS]) for number in range(3)]

    text = _file(tmp_path, *rules, rule(to_pool("b"), path="/pool"))

    assert text.count("proxy_hide_header x-team;") == 6


def test_rule_that_stayed_is_written_anew_when_most_others_hide_something_else(tmp_path: Path) -> None:
    memory = Memory()
    stays = rule(to_service("a"), path="/stays")
    others = [rule(to_service("a"), path=f"/set-{number}", filters=[SETS]) for number in range(3)]

    _file(tmp_path, stays, memory=memory)

    assert _file(tmp_path, stays, *others, memory=memory) == _file(tmp_path, stays, *others)
