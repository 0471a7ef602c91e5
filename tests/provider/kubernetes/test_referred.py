"""ConfigMaps that are read because something refers to them, and only those."""

import asyncio
from collections.abc import Callable

from controller.provider.kubernetes.referred import config_maps
from controller.resources.core import ConfigMap
from controller.resources.gateway_api import Gateway
from controller.resources.snapshot import Snapshot
from tests.provider.kubernetes.fake import CONFIG_MAPS, TLS_POLICIES, FakeApi, Json
from tests.provider.kubernetes.test_provider import followed, until


def _policy(*names: str) -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "known", "namespace": "demo"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "db"}],
            "validation": {
                "hostname": "db.example",
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": name} for name in names],
            },
        },
    }


def _map(name: str, text: str = "x") -> Json:
    about = {"name": name, "namespace": "demo"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"ca.crt": text}}


def _maps(*names: str) -> Callable[[Snapshot], bool]:
    return lambda found: {item.metadata.name for item in found.of(ConfigMap)} == set(names)


async def test_first_snapshot_has_what_its_policies_refer_to_and_nothing_else(server: FakeApi) -> None:
    await server.put(TLS_POLICIES, _policy("ca"))
    for name in ("ca", "other"):
        await server.put(CONFIG_MAPS, _map(name))
    async with followed(server) as (_, snapshots):
        first, _ = await anext(snapshots)
    assert _maps("ca")(first)


async def test_policy_that_comes_is_in_one_snapshot_with_what_it_refers_to(server: FakeApi) -> None:
    await server.put(CONFIG_MAPS, _map("ca"))
    async with followed(server) as (_, snapshots):
        first, _ = await anext(snapshots)
        assert _maps()(first)
        await server.put(TLS_POLICIES, _policy("ca"))
        second, _ = await asyncio.wait_for(anext(snapshots), 10)
    assert _maps("ca")(second)


async def test_config_map_is_followed_as_long_as_it_is_referred_to(server: FakeApi) -> None:
    await server.put(TLS_POLICIES, _policy("ca"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await server.put(CONFIG_MAPS, _map("ca"))
        await until(snapshots, _maps("ca"))
        await server.put(CONFIG_MAPS, _map("ca", "y"))
        await until(snapshots, lambda found: [item.data["ca.crt"] for item in found.of(ConfigMap)] == ["y"])
        await server.put(TLS_POLICIES, _policy("more"))
        await until(snapshots, _maps())
        await server.put(TLS_POLICIES, _policy("ca"))
        await until(snapshots, _maps("ca"))
        await server.delete(CONFIG_MAPS, "ca")
        await until(snapshots, _maps())


def test_authorities_of_a_gateway_s_clients_are_referred_to() -> None:
    reference = {"group": "", "kind": "ConfigMap", "name": "clients"}
    other = {**reference, "namespace": "other", "name": "more"}
    frontend = {
        "default": {"validation": {"caCertificateRefs": [reference]}},
        "perPort": [{"port": 443, "tls": {"validation": {"caCertificateRefs": [other]}}}],
    }
    gateway = Gateway.model_validate(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "demo"},
            "spec": {
                "gatewayClassName": "infergate",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                "tls": {"frontend": frontend},
            },
        }
    )
    assert config_maps([gateway]) == {("demo", "clients"), ("other", "more")}
