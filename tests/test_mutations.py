"""Resources that people get wrong in ways nobody thought of: the golden cases, changed at random.

Whatever is in a resource ends as data or as a condition. It stops nothing, nginx takes what is rendered, and a route
that has nothing to do with it is served.
"""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.agent.nginx import Nginx, check
from controller.agent.state import locked
from controller.bundle import Bundle
from controller.provider.file import read
from controller.provider.kubernetes.served import Slot
from controller.provider.kubernetes.store import Store
from controller.reconcile import bundle_of, bundle_of_gateway, topology_of
from controller.render.files import RenderSettings
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.kinds import MODELS
from controller.status.derive import derive
from controller.topology.build import build
from controller.topology.refusals import Refusals

CASES = sorted((Path(__file__).parent / "cases").glob("*/input.yaml"))
SEEDS = range(600)
TESTED_BY_NGINX = range(0, len(SEEDS), 15)

Node = Any  # Any: YAML
CUSTOM = {model.__name__: model for model in MODELS if "." in model.group and model.__name__ != "EndpointSlice"}
"""Kinds that a definition in the cluster describes, by name."""

VALUES: tuple[Node, ...] = (
    None, "", " ", "*", ".", "/", "//", "a" * 10_000, "ä", "\x00", "\n", "\r\nX-Evil: 1", '"; } server {', "}\n#",
    "$host", "${host}", "\\", "'", "(", "(?<a>.)\\1", "[", "^.*$", "%00", "../../etc/passwd", "@infergate_serve",
    "true", "1e999", "80", "10.0.0.1:80", "::1", "*.example.com", "a.b.c.d.e", "2026-13-45T99:99:99Z",
    "!!python/object:os.system", -1, 0, 1, 80, 65536, 2**63, 2**64, 1.5, float("inf"), True, False, [], {}, [[]],
    [None], {"": None}, {"a": {"b": {"c": []}}}, ["x"] * 100, [{}] * 20,
)  # fmt: skip
BYSTANDER = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: bystander}
spec: {controllerName: infergate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bystander, namespace: bystanders, creationTimestamp: "2020-01-01T00:00:00Z"}
spec:
  gatewayClassName: bystander
  listeners: [{name: only, port: 18999, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bystander, namespace: bystanders, creationTimestamp: "2020-01-01T00:00:00Z"}
spec:
  parentRefs: [{name: bystander}]
  hostnames: [bystander.example.com]
  rules:
  - matches: [{path: {type: Exact, value: /bystander}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /served}}}]
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_case_stops_nothing(seed: int, tmp_path: Path) -> None:
    assert "/served" in _text(_bundle(seed, tmp_path))


@pytest.mark.nginx
@pytest.mark.parametrize("seed", TESTED_BY_NGINX)
async def test_nginx_takes_what_is_rendered(seed: int, tmp_path: Path, nginx: Nginx) -> None:
    bundle = _bundle(seed, tmp_path)
    with locked(tmp_path / "state") as state:
        for file in bundle.files:
            path = state.root / "files" / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        refused = await check(nginx, state, "files/nginx.conf")
    # What a text in a resource may be is for PCRE to say, and then that resource is taken out (`test_reconcile`).
    assert refused is None or "pcre2_compile() failed" in refused.message, refused


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_object_of_a_cluster_stops_nothing(seed: int) -> None:
    chance = random.Random(seed)
    documents = [item for item in yaml.safe_load_all(chance.choice(CASES).read_text()) if item["kind"] in CUSTOM]
    for document in chance.sample(documents, min(2, len(documents))):
        _change(chance, document.get("spec"))
    store = Store()
    for number, document in enumerate([*documents, *yaml.safe_load_all(BYSTANDER)], start=1):
        model = CUSTOM[document["kind"]]
        # What the API server sees to, whatever the definition of a kind says.
        document["metadata"] |= {"uid": str(number), "resourceVersion": str(number), "generation": 1}
        store.put(Slot(model, document["apiVersion"].partition("/")[0], ""), document, path="/apis/x")
    snapshot = store.snapshot()
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    nothing = Refusals({}, {}, {})
    derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME, refusals=nothing)
    settings = RenderSettings(listen_addresses=("0.0.0.0",))
    bundles = [
        bundle_of_gateway(topology, nothing, gateway=gateway.key, settings=settings) for gateway in topology.gateways
    ]
    assert any("/served" in _text(bundle) for bundle in bundles)


def _bundle(seed: int, directory: Path) -> Bundle:
    """What a changed case gives. Statuses are made too."""
    chance = random.Random(seed)
    documents = list(yaml.safe_load_all(chance.choice(CASES).read_text()))
    for _ in range(chance.randint(1, 4)):
        _change(chance, chance.choice(documents))
    (directory / "changed.yaml").write_text(yaml.safe_dump_all(documents, allow_unicode=chance.random() < 0.5))
    (directory / "bystander.yaml").write_text(BYSTANDER)
    snapshot = read(directory)
    topology = topology_of(snapshot)
    nothing = Refusals({}, {}, {})
    derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME, refusals=nothing)
    return bundle_of(topology, nothing, name="local", settings=RenderSettings(access_log="access.log"))


def _change(chance: random.Random, document: Node) -> None:
    """Change one place: another value, a missing field, one too many, the value of another place."""
    places = list(_places(document))
    if not places:
        return
    holder, key = chance.choice(places)
    what = chance.randrange(5)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[chance.choice(["extra", "name", "type", "value", "", "a" * 300])] = copy.deepcopy(chance.choice(VALUES))
    elif what == 2:
        other, place = chance.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif what == 3 and isinstance(holder, list):
        holder += [copy.deepcopy(holder[key]) for _ in range(chance.choice([1, 2, 70]))]
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))


def _places(node: Node) -> list[tuple[Node, Any]]:  # Any: key or position
    """Every field and every item, each by what holds it."""
    found: list[tuple[Node, Any]] = []
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        found += [(node, key), *_places(value)]
    return found


def _text(bundle: Bundle) -> str:
    return "\n".join(file.content.decode() for file in bundle.files if not file.secret)
