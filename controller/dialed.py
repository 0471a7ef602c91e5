"""Backends that nginx reaches through the dialer, as a data plane is told of them."""

from typing import Final

import msgspec

from controller.pools import Pools

DIALED_FILE: Final = "dialed.json"
"""Backends behind the dialer as JSON, in a bundle, and in the state directory for the dialer to follow."""
_IN_FILE_NAMES: Final = str.maketrans({":": "_", "[": None, "]": None})
"""nginx takes a colon for the end of a socket's path. The same is in `nginx/njs/paths.js`."""


class DialedEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint behind a socket of the dialer."""

    address: str
    """`ip:port`, an IPv6 address in brackets."""
    socket: str
    """Relative to the state directory; of this backend alone."""


class Dialed(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Endpoints that nginx reaches through the dialer, and how they are known."""

    server_name: str
    """Asked for in the handshake."""
    authorities: str
    """Certificates in PEM, from one of which that of an endpoint must come."""
    endpoints: tuple[DialedEndpoint, ...] = ()
    """Those of a Service. The endpoints of a pool are in the pools file."""
    pool: str = ""
    """`namespace/name` of the pool whose endpoints are dialed; empty for none."""
    stem: str = ""
    """Of the sockets of the pool's endpoints, see `dialed_socket`."""
    hostnames: tuple[str, ...] = ()
    """An endpoint's certificate has one of these or of `uris`; a leading `*.` covers one label."""
    uris: tuple[str, ...] = ()
    chain: str = ""
    """In PEM, shown to endpoints; empty for none."""
    key: str = ""
    """Of `chain`, in PEM."""
    http2: bool = False
    """Else HTTP/1.1."""

    def __repr__(self) -> str:
        return f"Dialed({self.server_name!r}, {self.pool or f'{len(self.endpoints)} endpoints'})"


class DialedBackends(msgspec.Struct, frozen=True, rename="camel"):
    """Every backend behind the dialer."""

    backends: tuple[Dialed, ...]


def decode_dialed(text: bytes) -> DialedBackends:
    """Backends from the JSON of `DIALED_FILE`.

    Raises ValueError when the text is not of that shape.
    """
    return msgspec.json.decode(text, type=DialedBackends)


def encode_dialed(backends: DialedBackends) -> bytes:
    """Backends as the JSON of `DIALED_FILE`. It may hold keys."""
    return msgspec.json.encode(backends)


def dialed_socket(stem: str, address: str) -> str:
    """Where the dialer listens for an endpoint `ip:port`, relative to the state directory."""
    return f"{stem}_{address.translate(_IN_FILE_NAMES)}.sock"


def dialed_endpoints(dialed: Dialed, pools: Pools) -> tuple[DialedEndpoint, ...]:
    """Every endpoint of a backend, those of its pool included."""
    if not dialed.pool:
        return dialed.endpoints
    addresses = {item.address for pool in pools.pools if pool.name == dialed.pool for item in pool.endpoints}
    return tuple(DialedEndpoint(address, dialed_socket(dialed.stem, address)) for address in sorted(addresses))
