"""What control plane and data plane instances say to each other over HTTPS.

An instance asks `GET /bundles/NAMESPACE/NAME?version=V&etag=E&wait=SECONDS` with what it was given last, and gets a
`Delivery` of the parts that are others by then, or 204 when there were none in time. It tells what became of it by
`POST /reports/NAMESPACE/NAME` with a `Statement`. Both carry its token as `Authorization: Bearer …`.
"""

from typing import Final

import msgspec

from controller.bundle import BundleFile
from controller.errors import NginxRefused
from controller.pools import Pools

BUNDLES_PATH: Final = "/bundles"
REPORTS_PATH: Final = "/reports"
"""Both are followed by `/NAMESPACE/NAME` of a Gateway."""

AUDIENCE: Final = "infergate.dev/data-plane"
"""Whom the token of an instance is for."""

LONGEST_WAIT: Final = 60.0
"""Seconds; a request that asks for more waits this long."""
POLL_WAIT: Final = 20.0
"""Seconds that an instance asks the control plane to wait for something newer."""
REPORT_EVERY: Final = 10.0
"""Seconds between two reports of an instance that has nothing new to say, so that a control plane that was just started
knows soon."""


class Delivery(msgspec.Struct, frozen=True):
    """What a data plane has to serve."""

    gateway: str
    """`namespace/name`."""
    version: str
    etag: str
    """Of the pools."""
    files: tuple[BundleFile, ...] | None = None
    """None when the instance has that version."""
    pools: Pools | None = None
    """None when the instance has that etag."""

    def __repr__(self) -> str:
        return f"Delivery(gateway={self.gateway!r}, version={self.version!r}, etag={self.etag!r})"


class Refusal(msgspec.Struct, frozen=True):
    """Why nginx did not take a version. See `NginxRefused`."""

    message: str
    file: str | None = None
    line: int | None = None


class Statement(msgspec.Struct, frozen=True):
    """What an instance says of itself."""

    version: str
    """The newest version that it was given; empty before the first."""
    live: str
    """The version that nginx serves; empty when it serves none."""
    etag: str = ""
    """Of the pools that the picker was given last."""
    refusal: Refusal | None = None
    """Why `version` is not served."""
    problem: str = ""
    """What else keeps `version` from being served; for people."""
    seconds: float = 0.0
    """That applying `version` took."""
    is_leaving: bool = False
    """Whether the instance is ending and will not report again."""


def encode_delivery(delivery: Delivery) -> bytes:
    """A delivery as MessagePack."""
    return msgspec.msgpack.encode(delivery)


def decode_delivery(body: bytes) -> Delivery:
    """Raises ValueError when the body is none."""
    return msgspec.msgpack.decode(body, type=Delivery)


def encode_statement(statement: Statement) -> bytes:
    """A statement as JSON."""
    return msgspec.json.encode(statement)


def decode_statement(body: bytes) -> Statement:
    """Raises ValueError when the body is none."""
    return msgspec.json.decode(body, type=Statement)


def refusal_of(refused: NginxRefused | None) -> Refusal | None:
    """For the way to the control plane."""
    return Refusal(refused.message, refused.file, refused.line) if refused is not None else None


def refused_of(refusal: Refusal | None) -> NginxRefused | None:
    """As it was in the instance."""
    return NginxRefused(refusal.file, refusal.line, refusal.message) if refusal is not None else None
