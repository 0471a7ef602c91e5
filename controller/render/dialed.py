"""Backends that NGINX reaches through the dialer, because it cannot know them by itself.

NGINX compares a certificate with one hostname (`proxy_ssl_name`), which is the one that it asks for too, up to 1.31 at
least; none of its variables holds the certificate of a backend. And the relay, which asks external pickers, speaks to
their endpoints in NGINX's place and leaves TLS to the dialer.
"""

import hashlib

from controller.dialed import Dialed, DialedBackends, DialedEndpoint, dialed_socket, encode_dialed
from controller.ir.policies import AltName, BackendTls
from controller.ir.types import Certificate, GatewayConfig, ToPool, Upstream
from controller.pools import Pool
from controller.render.destinations import targets_of


def is_dialed(tls: BackendTls | None, *, is_relayed: bool = False) -> bool:
    return tls is not None and (bool(tls.names) or is_relayed)


def dialed_pools(config: GatewayConfig) -> dict[str, BackendTls]:
    """How the pools are known whose endpoints are behind the dialer, by name."""
    relayed = {pool.name for pool in config.pools if pool.external is not None}
    targets = {target.pool: target.tls for target in targets_of(config) if isinstance(target, ToPool) and target.tls}
    return {name: tls for name, tls in sorted(targets.items()) if is_dialed(tls, is_relayed=name in relayed)}


def shown_to(config: GatewayConfig) -> tuple[Certificate | None, ...]:
    """What the Gateways of a data plane show to backends, each once; None where one shows nothing. Sorted."""
    found = {server.client_certificate for server in config.servers}
    return tuple(sorted(found, key=lambda item: str(item.source) if item else ""))


def stem_of(tls: BackendTls, *, speaks_http2: bool, shown: Certificate | None) -> str:
    """Of the sockets on which the dialer listens, in the state directory: another one for anything that differs."""
    digest = hashlib.sha256()
    names = [f"{item.is_uri}{item.name}" for item in _names(tls)]
    for part in (tls.hostname, str(speaks_http2), *names):
        digest.update(part.encode() + b"\0")
    for content in (tls.authorities, *((shown.chain, shown.key) if shown else ())):
        digest.update(hashlib.sha256(content).digest())
    return f"run/dial/{digest.hexdigest()[:32]}"


def sockets_of(upstream: Upstream, *, shown: Certificate | None) -> tuple[str, ...]:
    """Where the dialer listens for the endpoints of a Service, in their order."""
    assert upstream.tls is not None
    stem = stem_of(upstream.tls, speaks_http2=upstream.speaks_http2, shown=shown)
    return tuple(dialed_socket(stem, address) for address in upstream.endpoints)


def dialed_file(config: GatewayConfig) -> bytes:
    """What the dialer is told, with the keys that it needs; empty when there is nothing to dial."""
    secured = dialed_pools(config)
    pools = [pool for pool in config.pools if pool.name in secured]
    certificates = shown_to(config)
    found = [_service(item, shown) for item in config.upstreams if is_dialed(item.tls) for shown in certificates]
    found += [_pool(pool, secured[pool.name], shown) for pool in pools for shown in certificates]
    return encode_dialed(DialedBackends(tuple(found))) if found else b""


def _service(upstream: Upstream, shown: Certificate | None) -> Dialed:
    assert upstream.tls is not None
    sockets = sockets_of(upstream, shown=shown)
    endpoints = tuple(DialedEndpoint(*pair) for pair in zip(upstream.endpoints, sockets, strict=True))
    return _dialed(upstream.tls, shown, speaks_http2=upstream.speaks_http2, endpoints=endpoints)


def _pool(pool: Pool, tls: BackendTls, shown: Certificate | None) -> Dialed:
    stem = stem_of(tls, speaks_http2=pool.speaks_http2, shown=shown)
    return _dialed(tls, shown, speaks_http2=pool.speaks_http2, pool=pool.name, stem=stem)


def _dialed(
    tls: BackendTls,
    shown: Certificate | None,
    *,
    speaks_http2: bool,
    endpoints: tuple[DialedEndpoint, ...] = (),
    pool: str = "",
    stem: str = "",
) -> Dialed:
    return Dialed(
        server_name=tls.hostname,
        authorities=tls.authorities.decode(),
        endpoints=endpoints,
        pool=pool,
        stem=stem,
        hostnames=tuple(item.name for item in _names(tls) if not item.is_uri),
        uris=tuple(item.name for item in _names(tls) if item.is_uri),
        chain=shown.chain.decode() if shown else "",
        key=shown.key.decode() if shown else "",
        http2=speaks_http2,
    )


def _names(tls: BackendTls) -> tuple[AltName, ...]:
    return tls.names or (AltName(tls.hostname),)
