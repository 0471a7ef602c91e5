"""Connections and datagrams that are passed on as they are, in a proxy's words."""

from dataclasses import dataclass
from enum import StrEnum

from controller.ir.certificates import Certificate
from controller.ir.policies import BackendTls
from controller.resources.meta import Key


class Transport(StrEnum):
    """What a port belongs to: the two have ports of their own."""

    TCP = "TCP"
    UDP = "UDP"


@dataclass(frozen=True, order=True)
class Opening:
    """A port that is opened."""

    port: int
    transport: Transport = Transport.TCP


class Mode(StrEnum):
    """What happens to TLS."""

    OPAQUE = "opaque"
    """Nobody looks for it."""
    PASSTHROUGH = "passthrough"
    """Only the name in its first message is read."""
    TERMINATE = "terminate"
    """It ends here."""


@dataclass(frozen=True)
class StreamBackend:
    """One of the places among which a rule divides connections."""

    upstream: str
    """Name of an Upstream among `stream_upstreams`. Empty: connections are closed and datagrams dropped, because the
    backend does not resolve or has no endpoint."""
    weight: int
    """0 gets nothing. Shares are weights over their sum."""
    tls: BackendTls | None = None
    """None: bytes go on as they came."""


@dataclass(frozen=True)
class StreamRule:
    """What happens to the connections of a route."""

    route: Key
    index: int
    """0-based position in the route's rules."""
    backends: tuple[StreamBackend, ...]
    """Without a backend of positive weight connections are closed."""
    is_secured: bool = False
    """Whether these are the backends of connections whose TLS ended here, where some have TLS of their own."""
    client_certificate: Certificate | None = None
    """Shown to backends that have TLS of their own."""

    @property
    def id(self) -> str:
        """`Kind/namespace/route/index`, and what else makes a difference; unique in a GatewayConfig."""
        shown = f"/{self.client_certificate.source.path}" if self.client_certificate else ""
        secured = "/tls" if self.is_secured else ""
        return f"{self.route.kind}/{self.route.namespace}/{self.route.name}/{self.index}{secured}{shown}"


@dataclass(frozen=True)
class StreamServer:
    """What becomes of the connections for some hostnames on a port."""

    owner: Key
    """The Gateway or ListenerSet that has the listener."""
    listener: str
    """Name of the listener, for a reader."""
    port: int
    transport: Transport
    mode: Mode
    hostnames: tuple[str, ...]
    """As a Server's, compared with the name that a client sends in TLS; `*` alone where nobody looks for one. `*` is
    also for clients that send none."""
    certificates: tuple[Certificate, ...]
    """Empty unless TLS ends here for a route."""
    rule: StreamRule | None
    """None: no route is attached. Connections are closed and datagrams dropped."""
