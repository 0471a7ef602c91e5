"""The resources of docs/install.md and docs/gateway-parameters.md are good ones."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources.gateway_api import CONTROLLER_NAME, GatewayClass
from controller.resources.kinds import Refused, read
from controller.resources.meta import Resource
from controller.resources.parameters import GatewayParametersSpec
from controller.resources.snapshot import snapshot
from controller.topology.build import build

DOCS = Path(__file__).parents[2] / "docs"


def _documents(page: str) -> list[dict[str, Any]]:  # any: YAML of any shape
    blocks = [piece.partition("```")[0] for piece in (DOCS / page).read_text().split("```yaml\n")[1:]]
    return [document for block in blocks for document in yaml.safe_load_all(block)]


@pytest.mark.parametrize("page", ["install.md", "gateway-parameters.md"])
def test_documents_of_a_page_are_read(page: str) -> None:
    found = [read(document, index=1) for document in _documents(page)]

    assert any(isinstance(item, Resource) for item in found)
    assert [item for item in found if isinstance(item, Refused)] == []


def test_first_gateway_serves_its_pool() -> None:
    our_class = {"kind": "GatewayClass", "metadata": {"name": "infergate"}, "spec": {"controllerName": CONTROLLER_NAME}}
    found = [read(document, index=1) for document in _documents("install.md")]
    resources = [item for item in found if isinstance(item, Resource)]
    topology = build(
        snapshot([*resources, GatewayClass.model_validate({"apiVersion": "v1", **our_class})]),
        controller_name=CONTROLLER_NAME,
    )
    (gateway,), (route,) = topology.gateways, topology.routes
    conditions = {item.type: item.status for parent in route.parents for item in parent.conditions}

    assert gateway.serves
    assert conditions == {"Accepted": True, "ResolvedRefs": True}


def test_every_field_of_parameters_is_on_its_page() -> None:
    page = (DOCS / "gateway-parameters.md").read_text()
    names = [str(item.alias) for item in GatewayParametersSpec.model_fields.values()]

    assert [name for name in names if f"`{name}" not in page] == []
