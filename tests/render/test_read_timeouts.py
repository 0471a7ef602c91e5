"""How long nginx waits for the first byte of a backend, in every location of every case: an hour, unless its rule says
otherwise. A thought of an hour cannot be waited for in a test; `tests/nginx/test_timeouts.py` waits for shorter ones.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.ir.types import GatewayConfig
from controller.provider.file import read
from controller.render.files import RenderSettings, render
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.topology.build import build
from controller.topology.sharing import shared
from controller.translate.build import translate

CASES = Path(__file__).parent.parent / "cases"
HOUR = "3600s"
OURS = ("http://infergate_picker", "http://infergate_relay")
"""Not backends: a pick has a limit of its own, and the relay sends on what the rule says."""
TOKEN = re.compile(r'#[^\n]*|"(?:[^"\\]|\\.)*"|[{};]|[^\s{};"]+(?:\$\{\w+\}[^\s{};"]*)*', re.DOTALL)


@dataclass
class Block:
    """A block of nginx with its directives, includes resolved."""

    name: str
    outer: "Block | None" = None
    directives: dict[str, list[str]] = field(default_factory=dict)
    blocks: "list[Block]" = field(default_factory=list)

    def effective(self, directive: str) -> str | None:
        """What holds in here: its own or what is inherited."""
        if directive in self.directives:
            return self.directives[directive][-1]
        return self.outer.effective(directive) if self.outer else None

    def all(self) -> "Iterator[Block]":
        yield self
        for block in self.blocks:
            yield from block.all()


def _fill(block: Block, path: str, files: dict[str, str]) -> None:
    words: list[str] = []
    for token in TOKEN.findall(files[path]):
        if token.startswith("#"):
            continue
        if token == "{":
            inner = Block(" ".join(words), block)
            block.blocks.append(inner)
            block = inner
        elif token == "}":
            assert block.outer is not None
            block = block.outer
        elif token == ";" and words[0] == "include":
            for name in sorted(files) if "*" in words[1] else [words[1]]:
                if Path(name).match(words[1]):
                    _fill(block, name, files)
        elif token == ";":
            block.directives.setdefault(words[0], []).append(" ".join(words[1:]))
        if token in "{};":
            words = []
        else:
            words.append(token)


def _config(name: str) -> GatewayConfig:
    snapshot = read(CASES / name / "input.yaml")
    topology = shared(build(snapshot, controller_name=CONTROLLER_NAME), snapshot=snapshot)
    return translate(topology, name="local", gateways={item.key for item in topology.gateways})


def _waits(config: GatewayConfig) -> list[tuple[str, str | None, bool]]:
    """(location, what it waits for, whether that is what a rule's own timeouts say) of each that asks a backend."""
    bundle = render(config, RenderSettings())
    main = Block("")
    _fill(main, "nginx.conf", {file.path: file.content.decode() for file in bundle.files})
    found = []
    for block in main.all():
        for kind in ("proxy", "grpc"):
            target = block.directives.get(f"{kind}_pass", [""])[0]
            is_copy = "internal" in block.directives
            is_stream = "http" not in [outer.name for outer in _around(block)]
            if target and not target.startswith(OURS) and not is_copy and not is_stream:
                waited = block.effective(f"{kind}_read_timeout")
                is_own = f"{kind}_next_upstream_timeout" in block.directives
                found.append((block.name, waited, is_own))
    return found


def _around(block: Block) -> Iterator[Block]:
    while block.outer is not None:
        block = block.outer
        yield block


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CASES.glob("*/input.yaml")))
def test_first_byte_of_a_backend_may_take_an_hour(name: str) -> None:
    config = _config(name)
    timeouts = [rule.timeouts for server in config.servers for rule in server.rules if rule.timeouts]
    said = {f"{round(each.silence * 1000)}ms" for each in timeouts}
    for location, waited, is_own in _waits(config):
        assert (waited in said) if is_own else (waited == HOUR), location


def test_locations_of_all_kinds_are_looked_at() -> None:
    names = {
        "backends": "service-of-http2",
        "pools": "fail-open-pool",
        "calls": "calls-by-service-and-method",
        "limits": "timeouts-of-a-rule",
        "models": "rewrite-of-a-pool",
    }
    waits = {kind: _waits(_config(name)) for kind, name in names.items()}
    assert {kind for kind, found in waits.items() if any("location" in where for where, *_ in found)} == set(names)
    assert any(is_own for _, _, is_own in waits["limits"])
    assert any("/rewritten" in where for where, *_ in waits["models"])
