"""What can go wrong between the relay, a picker and an endpoint."""

from enum import StrEnum

from controller.headers import TryOutcome


class RelayError(Exception):
    """Base of everything here; its text is for a log."""


class Fault(StrEnum):
    """How a picker fails; the label of the metric."""

    UNREACHABLE = "unreachable"
    """No connection, no endpoint behind its Service, or no proof of who it is."""
    LATE = "late"
    ENDED = "ended"
    """The stream ended with an error, or before all was said."""
    UNREADABLE = "unreadable"
    """What came is no message of the protocol."""
    NO_ENDPOINT = "no_endpoint"
    OUTSIDE_POOL = "outside_pool"
    """None of the endpoints that it names belongs to the pool."""
    UNACCEPTABLE = "unacceptable"
    """A message that asks for what is not done: too many headers, another length than was told, no status."""
    NO_ROOM = "no_room"
    """The relay's own: no place for a body."""


class PickerFailed(RelayError):
    """The picker cannot be reached, is late, or breaks the protocol: the pool's failure mode decides."""

    def __init__(self, message: str, *, fault: Fault = Fault.UNACCEPTABLE) -> None:
        super().__init__(message)
        self.fault = fault


class EndpointFailed(RelayError):
    """An endpoint cannot be reached, or ended the connection before its answer began."""

    def __init__(self, message: str, *, outcome: TryOutcome = TryOutcome.CLOSED) -> None:
        super().__init__(message)
        self.outcome = outcome


class AnswerBroken(RelayError):
    """An answer cannot go on, after a part of it was sent: the client's connection is all that can end."""
