"""How long and how often a rule tries, and how backends and clients are known, in a proxy's words.

Each type here has its resolver in `topology/attempts.py`, `topology/client_certificates.py` or `topology/policies/`,
and one template in `templates/policies/`, named after it.
"""

from dataclasses import dataclass, field
from typing import Final

from controller.resources.meta import Key

WITHOUT_END: Final = 20 * 86_400.0
"""Seconds that stand for no timeout: nginx's timers are numbers of 31 bits of milliseconds, 24 days."""


LONGEST_PICK: Final = 90.0
"""Seconds that a pick may take, a wait in the queue included; as in `nginx/proxy/pick.conf`."""


@dataclass(frozen=True)
class Timeouts:
    """Of the requests of a rule, in seconds. None is without end; one of them may be given as such."""

    request: float | None
    """From the request to the end of the answer, whatever was tried."""
    backend: float | None
    """From the start of one try to the end of its answer."""

    @property
    def silence(self) -> float:
        """Until the first byte of a backend's answer, and between two pieces of it."""
        return min((bound for bound in (self.request, self.backend) if bound), default=WITHOUT_END)

    @property
    def connect(self) -> float:
        """Until a connection stands: what the network needs, if that is less."""
        return min(2.0, self.silence)

    @property
    def is_short(self) -> bool:
        """Whether the request has less time than the picker may take."""
        return self.request is not None and self.request < LONGEST_PICK

    @property
    def is_bounded(self) -> bool:
        return self.request is not None or self.backend is not None


@dataclass(frozen=True)
class Retry:
    """Sends a request of a rule again when a backend fails, before any byte of an answer. Not for pools."""

    attempts: int
    """After the first, at least 1."""
    codes: tuple[int, ...]
    """Statuses that count as a failure, sorted. A backend that cannot be reached or is silent always does."""
    backoff: float
    """Seconds before each."""


@dataclass(frozen=True)
class Session:
    """Keeps the requests of a session on one endpoint, by a token that the client is given and shows again."""

    name: str
    """Of the cookie, or of the header in lower case; empty: one that no other rule has."""
    in_cookie: bool
    """Else in a header."""
    path: str
    """Of requests that bear the cookie, as in a URL."""
    lifetime: float | None
    """Seconds from its first request on; None: until its endpoint is gone."""
    is_permanent: bool = False
    """Whether clients keep the cookie for the lifetime; else until they end."""


@dataclass(frozen=True)
class AltName:
    """One of the names by which a backend may be known."""

    name: str
    """A lower-case hostname, which may start with `*.`, or a whole URI."""
    is_uri: bool = False


@dataclass(frozen=True)
class BackendTls:
    """Speaks TLS with a backend, and with none that does not prove who it is."""

    source: Key
    """The policy that says so."""
    hostname: str
    """Asked for in the handshake. Without `names` it is also the name that the certificate must have."""
    authorities: bytes = field(repr=False)
    """Certificates in PEM, from one of which the backend's must come."""
    names: tuple[AltName, ...] = ()
    """The certificate must have one of them, in order. Empty: `hostname`."""


@dataclass(frozen=True)
class ClientValidation:
    """Asks the clients of a server for a certificate."""

    authorities: bytes = field(repr=False)
    """Certificates in PEM, from one of which a client's must come."""
    is_required: bool
    """Whether a client without a valid one is turned away."""
