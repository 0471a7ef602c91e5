"""Messages of ext_proc as values: what a gateway sends, and what a picker answers.

The stubs of `xds-protos` stay in `encoding` and `decoding`: they take 60 ms and 7 MB to load, and have no types.

Source: envoy/service/ext_proc/v3/external_processor.proto; endpoint picker protocol 1.0.0 (proposal 004 of the
Inference Extension).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, TypeAlias

METHOD: Final = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
"""A bidirectional stream, one for each exchange of HTTP."""
SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"

ENDPOINT_KEY: Final = "x-gateway-destination-endpoint"
"""Header of a request, and key of `ENDPOINT_NAMESPACE`: `ip:port`, or several joined by commas, the first preferred."""
SERVED_KEY: Final = "x-gateway-destination-endpoint-served"
"""Key of `ENDPOINT_NAMESPACE` in the response phase: the `ip:port` that answered."""
SUBSET_KEY: Final = "x-gateway-destination-endpoint-subset"
ENDPOINT_NAMESPACE: Final = "envoy.lb"
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
OWN_NAMESPACE: Final = "infergate.dev"
"""What Infergate's gateway and Infergate's picker tell each other besides; no client can say it."""
MODEL_KEY: Final = "model"
"""Key of `OWN_NAMESPACE` in the answer to a request: the model that the request names."""
TARGET_KEY: Final = "target"
"""Key of `OWN_NAMESPACE` in the answer to a request: the model that a rewrite of the pool gives it. With a request
whose endpoints failed: the one that it was given before, and keeps."""
USAGE_KEY: Final = "usage"
"""Key of `OWN_NAMESPACE` in the answer to a request: whether the gateway is to read from the answer how many tokens it
took. Absent where the picker does not say."""
EXPLANATION_KEY: Final = "explanation"
"""Key of `OWN_NAMESPACE` in the answer to a request: why its endpoint was chosen, for a client that may ask. Known so
where no endpoint answers as well."""
SESSION_KEY: Final = "session"
"""Key of `OWN_NAMESPACE` with a request: `ip:port` of the endpoint that its session is on.

It is preferred. The subset of `SUBSET_NAMESPACE` then is this one endpoint, for pickers that know of no sessions, and
what the choice is limited to stands under `SUBSET_KEY` beside this. A refusal repeats it: no other endpoint would do
either.
"""

TRIED_KEY: Final = "tried"
"""Key of `OWN_NAMESPACE` with a request: endpoints that failed it before, as in `TRIED_HEADER`. They were told of where
they were chosen: under the same key with an answer of status 502, which comes from none of them."""


class MessageUnreadable(ValueError):
    """Bytes from the other end are not what the protocol says."""


class Phase(StrEnum):
    REQUEST = "request"
    RESPONSE = "response"


class Action(IntEnum):
    """What setting a header does to one that is there. Source: HeaderValueOption.HeaderAppendAction."""

    APPEND = 0
    ADD_IF_ABSENT = 1
    OVERWRITE = 2
    OVERWRITE_IF_EXISTS = 3


class BodyMode(IntEnum):
    """How a gateway sends bodies. Source: ProcessingMode.BodySendMode."""

    NONE = 0
    STREAMED = 1
    """Piece by piece, each answered; the headers are gone by then."""
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX = 4
    """Piece by piece, answered by a stream of pieces whenever the other end likes; headers wait for their answer."""


Headers: TypeAlias = tuple[tuple[str, bytes], ...]
"""Names are lower-case; in order, with repetition."""
Metadata: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By namespace and key; values as JSON has them, hence Any."""


@dataclass(frozen=True, slots=True)
class HeadersPart:
    """Headers of a request, the pseudo headers first, or of a response with `:status`."""

    phase: Phase
    headers: Headers
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class BodyPart:
    phase: Phase
    chunk: bytes = field(repr=False)
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class TrailersPart:
    phase: Phase
    trailers: Headers = ()


Part: TypeAlias = HeadersPart | BodyPart | TrailersPart
"""What a gateway sends, in this order for each phase: headers, body, trailers."""


@dataclass(frozen=True, slots=True)
class Received:
    """A part, and what a gateway tells with it."""

    part: Part
    metadata: Metadata
    modes: tuple[BodyMode, BodyMode] | None
    """Of request and response, with the first part of a stream; None where the gateway does not say."""
    attributes: Mapping[str, Any]
    """Of the gateway by name, such as `upstream.address`; values as JSON has them, hence Any."""
    observes: bool
    """Whether the gateway only shows the exchange and takes no answers."""


@dataclass(frozen=True, slots=True)
class SetHeader:
    name: str
    """Lower-case."""
    value: bytes
    action: Action = Action.OVERWRITE


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of headers: removals come first."""

    set: tuple[SetHeader, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.remove)


NO_CHANGES: Final = Changes()


@dataclass(frozen=True, slots=True)
class HeadersAnswer:
    phase: Phase
    changes: Changes = NO_CHANGES
    body: bytes | None = field(default=None, repr=False)
    """Takes the place of the whole body; None leaves it."""
    replaces: bool = False
    """Whether `body` is final, and no more of the original body is wanted (CONTINUE_AND_REPLACE)."""
    clears_route: bool = False


@dataclass(frozen=True, slots=True)
class BodyAnswer:
    """Of one piece of body. Without `chunk` the original piece stays."""

    phase: Phase
    chunk: bytes | None = field(default=None, repr=False)
    """Takes the place of the piece; empty removes it."""
    is_streamed: bool = False
    """Whether `chunk` is a piece of a stream of its own, which answers no piece in particular."""
    end_of_stream: bool = False
    """Of such a stream."""
    changes: Changes = NO_CHANGES
    clears_route: bool = False


@dataclass(frozen=True, slots=True)
class TrailersAnswer:
    phase: Phase
    changes: Changes = NO_CHANGES


@dataclass(frozen=True, slots=True)
class Immediate:
    """The client's answer, in place of everything that would have followed."""

    status: int
    body: bytes = b""
    changes: Changes = NO_CHANGES
    details: str = ""


Answer: TypeAlias = HeadersAnswer | BodyAnswer | TrailersAnswer | Immediate
"""What a picker sends, in any order."""


def endpoints_of(text: str) -> tuple[str, ...]:
    """The items of a comma-separated list of endpoints, without repetition, in order."""
    return tuple(dict.fromkeys(item for part in text.split(",") if (item := part.strip())))


def endpoints_in(value: object) -> tuple[str, ...]:
    """Endpoints in a value of metadata, which is a list or a text with commas; none in anything else."""
    if isinstance(value, str):
        return endpoints_of(value)
    if isinstance(value, Sequence):
        return endpoints_of(",".join(item for item in value if isinstance(item, str)))
    return ()
