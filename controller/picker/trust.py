"""How the picker knows the endpoints that it asks over TLS: as NGINX does, by the policy of their pool."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from controller.alt_names import is_known, names_of
from controller.pools import Pool, PoolTls

_MOST: Final = 256
"""Policies whose certificates are kept ready."""


def trusts_of(pools: Sequence[Pool]) -> Mapping[str, PoolTls]:
    """By the address of each endpoint that is spoken to in TLS; of two pools with one endpoint the first counts."""
    found: dict[str, PoolTls] = {}
    for pool in pools:
        if pool.tls is not None:
            for endpoint in pool.endpoints:
                found.setdefault(endpoint.address, pool.tls)
    return found


@lru_cache(maxsize=_MOST)
def context_of(tls: PoolTls) -> ssl.SSLContext:
    """Takes only a certificate from one of the authorities.

    The name in it is the one that is asked for, unless `knows` looks for others.

    Raises ValueError when those cannot be loaded, which NGINX would have refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = not (tls.hostnames or tls.uris)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=tls.authorities)
    except ssl.SSLError as error:
        raise ValueError(f"authorities of {tls.server_name} cannot be loaded: {error}") from error
    return context


def knows(tls: PoolTls, transport: asyncio.BaseTransport) -> bool:
    """Whether the certificate that was shown has one of the names of the policy."""
    if not (tls.hostnames or tls.uris):
        return True
    return is_known(names_of(transport.get_extra_info("peercert")), hostnames=tls.hostnames, uris=tls.uris)
