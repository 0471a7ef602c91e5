"""What a trace holds: JSON lines, one event each, of all that a picker is told and decides.

Prompts are there as sizes and hashes. A hash tells nobody what was said, but whoever knows a text can find out whether
it was said: a trace is for those who may read the prompts.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from controller.completions import Completion, FirstByte
from controller.errors import InputUnreadable
from controller.picker.chunks import Turn
from controller.picker.health import Failure
from controller.picker.model_servers import Reading
from controller.pools import Pool

VERSION: Final = 1


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel", tag_field="event", kw_only=True):
    """Something that happened."""

    at: float
    """Seconds since the recording began."""


class Opened(Event, tag="opened", frozen=True):
    """The first event: how the picker was set."""

    version: int
    staleness: float
    """Seconds after which a reading is too old."""
    seed: int = 0
    """Of what breaks ties, so that the same policy breaks them alike."""
    replicas: bool = False


class Served(Event, tag="pools", frozen=True):
    """Pools that are served from here on."""

    pools: tuple[Pool, ...]


class Picked(Event, tag="pick", frozen=True):
    """A request, and what was chosen for it."""

    id: str
    pool: str
    outcome: str
    choice: str = ""
    """`ip:port`; empty where it was refused."""
    cached_bytes: int = 0
    """Of the prompt, what the chosen endpoint had by its index."""
    tried: tuple[tuple[str, Failure], ...] = ()
    """`ip:port` and failure of each endpoint that failed the request before."""
    size: int = 0
    """Bytes of the body."""
    prompt_bytes: int = 0
    hashes: tuple[int, ...] = ()
    turn: Turn | None = None
    adapter: str = ""
    is_streamed: bool = False
    max_tokens: int | None = None


class Told(Event, tag="feed", frozen=True):
    """First bytes and ends of answers, as NGINX told of them."""

    begun: tuple[FirstByte, ...] = ()
    ended: tuple[Completion, ...] = ()


class Read(Event, tag="reading", frozen=True):
    """An endpoint answered a scrape."""

    address: str
    name: str
    reading: Reading | None = None
    """None where it has no metrics."""
    own: int = 0
    """Requests in the reading that the picker had sent."""


AnyEvent = Opened | Served | Picked | Told | Read

_DECODER: Final = msgspec.json.Decoder(AnyEvent)


def encoded(event: AnyEvent) -> bytes:
    """An event as a line."""
    return msgspec.json.encode(event) + b"\n"


def events_in(lines: Iterable[bytes]) -> Iterator[AnyEvent]:
    """The events of a trace, whose last line may be cut off. Raises InputUnreadable."""
    is_first = True
    for number, line in enumerate(lines, start=1):
        if not is_first and not line.endswith(b"\n"):
            return
        try:
            event = _DECODER.decode(line)
        except ValueError as error:
            raise InputUnreadable(f"line {number}: is no event of a trace: {error}") from error
        if is_first and not (isinstance(event, Opened) and event.version == VERSION):
            raise InputUnreadable(f"line 1: found {line[:80]!r}, accepted is a trace of version {VERSION}")
        is_first = False
        yield event
    if is_first:
        raise InputUnreadable("it is empty")
