"""What nginx tells the picker of requests it picked for: that their answers began, and what became of them."""

from typing import Final

import msgspec

COMPLETIONS_FILE: Final = "run/completions.log"
"""Where nginx tells the picker what became of requests, one JSON object a line, in the state directory."""

FIRST_BYTES_PATH: Final = "/first-bytes"
"""Where nginx posts to the picker that answers began, one JSON object a line; answered 204."""


class Completion(msgspec.Struct, frozen=True, rename="camel"):
    """One finished inference request, as nginx tells the picker."""

    id: str
    """As in `ID_HEADER`."""
    pool: str
    endpoint: str
    """`ip:port` of the last endpoint tried; empty when the picker chose none."""
    tried: str
    """As in `TRIED_HEADER`: endpoints that failed before the last one."""
    status: int
    """What the client got; 499 when it hung up, 0 when the endpoint's answer is no HTTP."""
    upstream_status: str
    """nginx's $upstream_status: one status per upstream asked, picks included, joined by ` : ` (or `, ` inside one
    upstream); `-` where there was no answer."""
    duration: float
    """Seconds from the first byte of the request to the last of the answer."""
    first_byte: float | None
    """Seconds from the first byte of the request to the answer's headers; None without an answer."""
    waited: float | None
    """Of a streamed answer: seconds from sending the request to the endpoint until the body's first byte."""
    sent: int
    """Bytes of the body sent to the client."""
    prompt_tokens: int | None = None
    """As the answer's usage says; None when it does not."""
    cached_tokens: int | None = None
    """Of the prompt's tokens, those that the endpoint had in its cache; as above."""
    completion_tokens: int | None = None
    """Of the answer; as above."""
    is_whole: bool = True
    """Whether the answer came to its end, which one does not that its client or the endpoint breaks off."""


class FirstByte(msgspec.Struct, frozen=True, rename="camel"):
    """The first byte of an answer's body came, as nginx tells the picker while the request runs."""

    id: str
    """As in `ID_HEADER`."""
    waited: float
    """Seconds from sending the request to the endpoint."""


_COMPLETION: Final = msgspec.json.Decoder(Completion)
_FIRST_BYTE: Final = msgspec.json.Decoder(FirstByte)


def decode_completion(line: bytes) -> Completion:
    """A completion from one line of the JSON lines that nginx writes to `COMPLETIONS_FILE`.

    Raises ValueError when the line is none.
    """
    return _COMPLETION.decode(line)


def decode_first_byte(line: bytes) -> FirstByte:
    """A first byte from one line of the JSON lines that nginx posts to `FIRST_BYTES_PATH`.

    Raises ValueError when the line is none.
    """
    return _FIRST_BYTE.decode(line)
