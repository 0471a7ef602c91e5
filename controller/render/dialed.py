"""Backends that NGINX reaches through the dialer, because it cannot know them by itself.

NGINX compares a certificate with one hostname (`proxy_ssl_name`), which is the one that it asks for too, up to 1.31 at
least; none of its variables holds the certificate of a backend.
"""

import hashlib

from controller.bundle import Dialed, DialedBackends, DialedEndpoint, encode_dialed
from controller.ir.policies import BackendTls
from controller.ir.types import Certificate, GatewayConfig, Upstream
from controller.render.quoting import name


def is_dialed(tls: BackendTls | None) -> bool:
    return tls is not None and bool(tls.names)


def shown_to(config: GatewayConfig) -> tuple[Certificate | None, ...]:
    """What the Gateways of a data plane show to backends, each once; None where one shows nothing. Sorted."""
    found = {server.client_certificate for server in config.servers}
    return tuple(sorted(found, key=lambda item: str(item.source) if item else ""))


def socket_of(upstream: Upstream, address: str, *, shown: Certificate | None) -> str:
    """Where the dialer listens for an endpoint, in the state directory: another place for anything that differs."""
    assert upstream.tls is not None
    digest = hashlib.sha256()
    names = [f"{item.is_uri}{item.name}" for item in upstream.tls.names]
    for part in (upstream.tls.hostname, str(upstream.speaks_http2), *names):
        digest.update(part.encode() + b"\0")
    for content in (upstream.tls.authorities, *((shown.chain, shown.key) if shown else ())):
        digest.update(hashlib.sha256(content).digest())
    return f"run/dial/{digest.hexdigest()[:32]}_{name(address)}.sock"


def dialed_file(config: GatewayConfig) -> bytes:
    """What the dialer is told, with the keys that it needs; empty when there is nothing to dial."""
    shown = shown_to(config)
    found = [_dialed(upstream, each) for upstream in config.upstreams if is_dialed(upstream.tls) for each in shown]
    return encode_dialed(DialedBackends(tuple(found))) if found else b""


def _dialed(upstream: Upstream, shown: Certificate | None) -> Dialed:
    assert upstream.tls is not None
    names = upstream.tls.names
    return Dialed(
        server_name=upstream.tls.hostname,
        authorities=upstream.tls.authorities.decode(),
        endpoints=_endpoints(upstream, shown=shown),
        hostnames=tuple(item.name for item in names if not item.is_uri),
        uris=tuple(item.name for item in names if item.is_uri),
        chain=shown.chain.decode() if shown else "",
        key=shown.key.decode() if shown else "",
        http2=upstream.speaks_http2,
    )


def _endpoints(upstream: Upstream, *, shown: Certificate | None) -> tuple[DialedEndpoint, ...]:
    return tuple(DialedEndpoint(address, socket_of(upstream, address, shown=shown)) for address in upstream.endpoints)
