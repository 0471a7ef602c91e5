"""A real Envoy that asks a picker where requests go, configured as the gateways of the field configure theirs."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.nginx.gateway import eventually, free_ports

Json = dict[str, Any]  # Any: Envoy's configuration

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_EXTENSIONS}.filters.http"
_NAMESPACES = ["envoy.lb", "envoy.lb.subset_hint"]


@dataclass
class Envoy:
    """A running Envoy."""

    port: int
    admin: httpx.AsyncClient
    http: httpx.AsyncClient

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stat(self, name: str) -> int:
        """A counter or gauge."""
        lines = (await self.admin.get("/stats", params={"filter": f"^{name}$", "format": "text"})).text.split()
        return int(lines[-1]) if lines else 0


@contextlib.asynccontextmanager
async def run_envoy(
    binary: Path,
    directory: Path,
    picker: str,
    *,
    tls: bool = False,
    mode: str = "FULL_DUPLEX_STREAMED",
    response_mode: str | None = None,
    h2c: bool = False,
    subset: str | None = None,
    timeout: str = "60s",
) -> AsyncIterator[Envoy]:
    """An Envoy whose requests go where a picker says. `subset`: the endpoint that the picker may choose."""
    port, admin = free_ports(2)
    filters = [_set_subset(subset)] if subset is not None else []
    filters += [
        _ext_proc(mode, response_mode or mode),
        _filter("envoy.filters.http.router", f"{_HTTP}.router.v3.Router"),
    ]
    configuration = {
        "admin": {"address": _address("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [_listener(port, filters, timeout=timeout)],
            "clusters": [_pods(h2c=h2c), _picker(picker, tls=tls)],
        },
    }
    path = directory / "envoy.json"
    path.write_text(json.dumps(configuration))
    with (directory / "envoy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
            stdout=log, stderr=log, env={**os.environ, "HOME": str(directory)},
        )  # fmt: skip
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}") as admin_client,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=httpx.Limits()) as client,
        ):
            envoy = Envoy(port, admin_client, client)

            async def is_ready() -> bool:
                assert process.returncode is None, (directory / "envoy.log").read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    return (await admin_client.get("/ready")).status_code == 200
                return False

            await eventually(is_ready)
            yield envoy
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _ext_proc(mode: str, response_mode: str) -> Json:
    return _filter(
        "envoy.filters.http.ext_proc",
        f"{_HTTP}.ext_proc.v3.ExternalProcessor",
        grpc_service={"envoy_grpc": {"cluster_name": "picker"}, "timeout": "10s"},
        message_timeout="60s",
        processing_mode={
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": mode,
            "response_body_mode": response_mode,
            "request_trailer_mode": "SEND",
            "response_trailer_mode": "SEND",
        },
        response_attributes=["upstream.address"],
        metadata_options={
            "forwarding_namespaces": {"untyped": _NAMESPACES},
            "receiving_namespaces": {"untyped": _NAMESPACES[:1]},
        },
    )


def _set_subset(subset: str) -> Json:
    value = {"x-gateway-destination-endpoint-subset": [subset]}
    return _filter(
        "envoy.filters.http.set_metadata",
        f"{_HTTP}.set_metadata.v3.Config",
        metadata=[{"metadata_namespace": "envoy.lb.subset_hint", "value": value}],
    )


def _filter(name: str, kind: str, **settings: Any) -> Json:  # Any: as above
    return {"name": name, "typed_config": {"@type": kind, **settings}}


def _listener(port: int, filters: list[Json], *, timeout: str) -> Json:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "pods", "timeout": timeout, "idle_timeout": timeout}}
    manager = _filter(
        "envoy.filters.network.http_connection_manager",
        f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        http_filters=filters,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    )
    return {
        "address": _address("127.0.0.1", port),
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [manager]}],
    }


def _pods(*, h2c: bool) -> Json:
    protocol: Json = {"http2_protocol_options": {}} if h2c else {"http_protocol_options": {}}
    return {
        "name": "pods",
        "type": "ORIGINAL_DST",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-gateway-destination-endpoint"},
        "typed_extension_protocol_options": _options({"explicit_http_config": protocol}),
        "circuit_breakers": _UNLIMITED,
    }


def _picker(address: str, *, tls: bool) -> Json:
    host, _, port = address.rpartition(":")
    cluster = {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _options({"explicit_http_config": {"http2_protocol_options": {}}}),
        "circuit_breakers": _UNLIMITED,
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "no_traffic_interval": "1s",
                "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"},
            }
        ],
        "load_assignment": {
            "cluster_name": "picker",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
        },
    }
    if tls:
        # Nothing is verified, as gateways do unless they are told to.
        kind = f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"
        cluster["transport_socket"] = _filter("envoy.transport_sockets.tls", kind)
    return cluster


def _options(settings: Json) -> Json:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {kind: {"@type": f"type.googleapis.com/{kind}", **settings}}


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


_MANY = 100_000
_UNLIMITED: Json = {
    "thresholds": [
        {"max_connections": _MANY, "max_pending_requests": _MANY, "max_requests": _MANY, "max_retries": _MANY}
    ]
}
"""Envoy allows 1,024 requests at once to a cluster; a picker has a stream for each."""
