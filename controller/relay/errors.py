"""What can go wrong between the relay, a picker and an endpoint."""


class RelayError(Exception):
    """Base of everything here; its text is for a log."""


class PickerFailed(RelayError):
    """The picker cannot be reached, is late, or breaks the protocol: the pool's failure mode decides."""


class EndpointFailed(RelayError):
    """An endpoint cannot be reached, or ended the connection before its answer began."""


class AnswerBroken(RelayError):
    """An answer cannot go on, after a part of it was sent: the client's connection is all that can end."""


class StreamEnded(RelayError):
    """A stream of HTTP/2 was reset, or its connection is gone."""

    def __init__(self, reason: str, *, is_untouched: bool = False) -> None:
        super().__init__(reason)
        self.is_untouched = is_untouched
        """Whether the other end says that it did nothing with the stream, so that it may be opened elsewhere."""
