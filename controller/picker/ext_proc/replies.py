"""Messages that answer the parts of an exchange, and what both of its directions need to make them."""

from typing import Final

from controller.extproc.messages import BodyMode, Phase
from controller.extproc.wire import chunks_of, encode_piece

Replies = tuple[bytes, ...]
"""Messages, in the order in which they are sent."""

NOTHING: Final[Replies] = ()
BUFFERED: Final = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)
"""Modes in which there is one piece of body."""


def streamed(phase: Phase, body: bytes, *, end_of_stream: bool) -> Replies:
    """A body, or a piece of it, as pieces that Envoy takes."""
    pieces = tuple(chunks_of(body))
    last = len(pieces) - 1
    return tuple(
        b"".join(encode_piece(phase, piece, end_of_stream=end_of_stream and number == last))
        for number, piece in enumerate(pieces)
    )
