"""Files of authorities in a bundle."""

from dataclasses import replace
from pathlib import Path

from controller.bundle import Bundle
from controller.provider.file import read
from controller.reconcile import topology_of
from controller.render.files import RenderSettings, render
from controller.render.memory import Memory
from controller.resources.backend_tls import BackendTLSPolicy
from controller.resources.snapshot import Snapshot
from controller.topology import memory as topology_memory
from controller.translate.build import translate

CASE = Path(__file__).parent.parent / "cases" / "backends-in-tls"
AUTHORITIES = "tls/authorities_"


def test_policy_that_is_removed_leaves_neither_a_file_nor_a_reference(tmp_path: Path) -> None:
    built, rendered = topology_memory.Memory(), Memory()

    def bundle(found: Snapshot) -> Bundle:
        topology = topology_of(found, memory=built)
        config = translate(topology, name="local", gateways=frozenset(item.key for item in topology.gateways))
        return render(config, RenderSettings(), memory=rendered)

    (tmp_path / "input.yaml").write_text((CASE / "input.yaml").read_text())
    found = read(tmp_path)
    kept = tuple(item for item in found.resources if not isinstance(item, BackendTLSPolicy))

    before, after = bundle(found), bundle(replace(found, resources=kept))

    assert _mentions(before)
    assert not _mentions(after)


def _mentions(bundle: Bundle) -> list[str]:
    return [item.path for item in bundle.files if AUTHORITIES in item.path or AUTHORITIES.encode() in item.content]
