"""Questions for health: at once, by Check, and to be told of changes, by Watch.

Their messages have one field each, so they are written here rather than brought by a package.

Source: grpc/health/v1/health.proto.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from controller.extproc.grpc import INVALID_ARGUMENT, NOT_FOUND, OK, UNAVAILABLE
from controller.extproc.http2.served import CallOf, Stream
from controller.extproc.messages import SERVICE

LIVENESS: Final = "liveness"
SERVICES: Final = ("", LIVENESS, "readiness", SERVICE, "inference-extension")
"""Of which health is told; names as the field's pickers have them."""
_CHECK: Final = b"/grpc.health.v1.Health/Check"
_WATCH: Final = b"/grpc.health.v1.Health/Watch"
_LONGEST_QUESTION: Final = 1024


class Status(IntEnum):
    """As HealthCheckResponse numbers them."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3
    """Told to who watches; who asks once gets an error."""


class Health:
    """What is told of a server, and who is told of changes."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        """`is_ready` says whether requests are to come."""
        self._is_ready = is_ready
        self._watches: set[Watch] = set()

    def methods(self) -> dict[bytes, CallOf]:
        """What is asked, by its path."""
        return {_CHECK: lambda stream: Check(stream, self), _WATCH: lambda stream: Watch(stream, self, self._watches)}

    def of(self, service: str | None) -> Status:
        """Liveness is served for as long as there is an answer."""
        if service not in SERVICES:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if service == LIVENESS or self._is_ready() else Status.NOT_SERVING

    def tell(self) -> None:
        """Those who watch hear of what changed."""
        for watch in tuple(self._watches):
            watch.tell()

    def end(self) -> None:
        """Those who watch are to ask elsewhere."""
        for watch in tuple(self._watches):
            watch.end()


class Check:
    """One question. See `Call`."""

    def __init__(self, stream: Stream, health: Health) -> None:
        self._stream = stream
        self._health = health

    def message(self, data: bytes) -> None:
        """See `Call`."""
        status = self._health.of(_service_in(data))
        if status is Status.SERVICE_UNKNOWN:
            self._stream.end(NOT_FOUND, "no such service")
            return
        self._stream.send(_told(status))
        self._stream.end(OK)

    def holds(self, size: int) -> bool:
        """See `Call`."""
        return size < _LONGEST_QUESTION

    def half_closed(self) -> None:
        """See `Call`."""
        self._stream.end(INVALID_ARGUMENT, "nothing was asked")

    def drained(self) -> None:
        """See `Call`."""

    def gone(self) -> None:
        """See `Call`."""


class Watch:
    """A question that is answered again with each change, until who asks goes. See `Call`."""

    def __init__(self, stream: Stream, health: Health, watches: "set[Watch]") -> None:
        self._stream = stream
        self._health = health
        self._watches = watches
        self._service: str | None = None
        self._told: Status | None = None
        """What was told last; None before a question."""

    def message(self, data: bytes) -> None:
        """See `Call`."""
        self._service = _service_in(data)
        self._watches.add(self)
        self.tell()

    def tell(self) -> None:
        """Send the status where it is another one."""
        status = self._health.of(self._service)
        if status is not self._told:
            self._told = status
            self._stream.send(_told(status))

    def end(self) -> None:
        """Nothing more will be told."""
        self._watches.discard(self)
        self._stream.end(UNAVAILABLE, "the picker ends")

    def holds(self, size: int) -> bool:
        """See `Call`."""
        return size < _LONGEST_QUESTION

    def half_closed(self) -> None:
        """See `Call`. Whoever asked says no more, and listens."""
        if self._told is None:
            self._stream.end(INVALID_ARGUMENT, "nothing was asked")

    def drained(self) -> None:
        """See `Call`."""

    def gone(self) -> None:
        """See `Call`."""
        self._watches.discard(self)


def _told(status: Status) -> bytes:
    """A HealthCheckResponse."""
    return bytes((0x08, status))


def _service_in(request: bytes) -> str | None:
    """Field 1 of a HealthCheckRequest; None when it is none. Names that are known are shorter than 128 bytes."""
    if not request:
        return ""
    if request[0] != 0x0A or len(request) < 2 or request[1] != len(request) - 2:
        return None
    return request[2:].decode("utf-8", "replace")
