"""The table of fields that are read and not served."""

import pytest
from pydantic import BaseModel

from controller.resources.backend_tls import BackendTLSPolicySpec
from controller.resources.gateway_api import GatewaySpec, HTTPRouteFilter, HTTPRouteSpec, Listener
from controller.topology.unsupported import TABLE, Scope, Unsupported

MODELS: dict[Scope, type[BaseModel]] = {
    Scope.GATEWAY: GatewaySpec,
    Scope.LISTENER: Listener,
    Scope.ROUTE: HTTPRouteSpec,
    Scope.BACKEND_TLS: BackendTLSPolicySpec,
}


@pytest.mark.parametrize("row", [row for row in TABLE if row.scope in MODELS], ids=lambda row: str(row.path))
def test_row_names_a_field_of_its_model(row: Unsupported) -> None:
    assert row.field.split(".")[0] in MODELS[row.scope].model_fields


@pytest.mark.parametrize("row", [row for row in TABLE if row.scope not in MODELS], ids=lambda row: str(row.field))
def test_row_names_a_type_of_filter(row: Unsupported) -> None:
    assert row.field in str(HTTPRouteFilter.model_fields["type"].annotation)


def test_rows_differ() -> None:
    places = [(row.scope, row.field) for row in TABLE]
    assert len(set(places)) == len(places)
