"""Golden cases: what is rendered and reported for the resources in `tests/cases/NAME/input.yaml`.

nginx.conf holds the rendered files that differ from those of a gateway without resources, except the main file, which
only includes the others. `pytest tests/test_cases.py --update-cases` writes what is expected anew.
"""

import random
import subprocess
from pathlib import Path

import pytest
import yaml

from controller.agent.nginx import Nginx, check
from controller.agent.state import locked
from controller.bundle import Bundle
from controller.ir.types import GatewayConfig
from controller.pools import encode_pools
from controller.provider.file import read
from controller.render.files import VERSION_FILE, RenderSettings, render
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.status.derive import derive
from controller.status.shared_addresses import programmed_at
from controller.status.types import Programmed
from controller.topology.build import build
from controller.topology.sharing import shared
from controller.topology.types import Topology
from controller.translate.build import translate

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/input.yaml"))
SHUFFLES = 5
"""Orders of the documents that are tried beside the one in the file."""


@pytest.mark.parametrize("name", NAMES)
def test_case_gives_its_files(name: str, request: pytest.FixtureRequest) -> None:
    found = _outcome(CASES / name / "input.yaml")
    if request.config.getoption("--update-cases"):
        for file, content in found.items():
            (CASES / name / file).write_bytes(content)
    for file, content in found.items():
        assert content.decode() == (CASES / name / file).read_text(), f"{file} differs"


@pytest.mark.parametrize("name", NAMES)
def test_order_of_documents_changes_nothing(name: str, tmp_path: Path) -> None:
    text = (CASES / name / "input.yaml").read_text()
    documents = text.split("\n---\n")
    order = random.Random(name)
    for _ in range(SHUFFLES):
        order.shuffle(documents)
        shuffled = tmp_path / "input.yaml"
        shuffled.write_text("\n---\n".join(document.rstrip("\n") for document in documents) + "\n")
        assert _outcome(shuffled) == _outcome(CASES / name / "input.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_same_input_gives_the_same_version(name: str) -> None:
    first, second = (_rendered(_topology_of(read(CASES / name / "input.yaml"))) for _ in range(2))
    assert first.version == second.version
    assert first == second


@pytest.mark.nginx
@pytest.mark.parametrize("name", NAMES)
async def test_nginx_accepts_what_is_rendered(name: str, tmp_path: Path, nginx: Nginx) -> None:
    bundle = _rendered(_topology_of(read(CASES / name / "input.yaml")))
    with locked(tmp_path / "state") as state:
        for file in bundle.files:
            path = state.current / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        assert await check(nginx, state, "current/nginx.conf", stdout=subprocess.DEVNULL) is None


def _outcome(source: Path) -> dict[str, bytes]:
    """The expected files of a case by their name."""
    snapshot = read(source)
    topology = _topology_of(snapshot)
    bundle = _rendered(topology)
    return {
        "nginx.conf": _configuration(bundle),
        "pools.json": encode_pools(bundle.pools),
        "status.yaml": _status(topology, snapshot),
    }


def _topology_of(snapshot: Snapshot) -> Topology:
    return shared(build(snapshot, controller_name=CONTROLLER_NAME), snapshot=snapshot)


def _rendered(topology: Topology) -> Bundle:
    config = translate(topology, name="local", gateways={item.key for item in topology.gateways})
    return render(config, RenderSettings())


def _configuration(bundle: Bundle) -> bytes:
    """The files that resources have changed, one after the other."""
    bare = render(GatewayConfig(name=bundle.gateway, servers=(), upstreams=(), pools=()), RenderSettings())
    known = {file.path: file.content for file in bare.files}
    changed = [
        file
        for file in bundle.files
        if not file.secret and file.path not in ("nginx.conf", VERSION_FILE) and known.get(file.path) != file.content
    ]
    return b"\n".join(f"# file: {file.path}\n".encode() + file.content for file in changed)


def _status(topology: Topology, snapshot: Snapshot) -> bytes:
    """Documents that were rejected, and the status of every resource once a data plane serves it.

    GatewayClasses are left out: their status is the same everywhere.
    """
    sound = Programmed(serving=True)
    serving = {
        item.key: programmed_at(item, said=sound, listening=RenderSettings().listen_addresses if item.addresses else ())
        for item in topology.gateways
    }
    updates = derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME, programmed=serving)
    rejected = sorted(f"{item.subject}: {item.field}: {item.message}" for item in snapshot.rejections)
    found: dict[str, object] = {}
    for item in updates:
        if item.key.kind != "GatewayClass":
            found[f"{item.key} of {item.key.group}" if str(item.key) in found else str(item.key)] = item.status
    documents = [{"rejected": rejected}, found] if rejected else [found]
    text: bytes = yaml.safe_dump_all(documents, sort_keys=False, width=120, default_flow_style=None, encoding="utf-8")
    return text
