"""GatewayParameters where all Gateways share one nginx."""

import httpx
import pytest

from tests.nginx.gateway import Gateway

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

KIB = 1024


async def test_size_of_bodies_is_that_of_the_parameters(gateway: Gateway, http: httpx.AsyncClient) -> None:
    reference = {"group": "infergate.dev", "kind": "GatewayParameters", "name": "small", "namespace": "default"}
    our_class = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "infergate"},
        "spec": {"controllerName": "infergate.dev/gateway-controller", "parametersRef": reference},
    }
    parameters = {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "small"},
        "spec": {"nginx": {"maxBodySize": "4Ki"}},
    }
    await gateway.apply("parameters.yaml", our_class, parameters)

    assert (await http.post("/", content=b"x" * 4 * KIB)).status_code == 404
    assert (await http.post("/", content=b"x" * (4 * KIB + 1))).status_code == 413
