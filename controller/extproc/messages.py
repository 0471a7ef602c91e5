"""Messages of ext_proc, as bytes on the wire and as values: what a gateway sends, and what a picker answers.

The stubs of `xds-protos` stay in here: they take 60 ms and 7 MB to load, and have no types. Decoding accepts what the
field sends: a header's value in `raw_value` or in `value`, metadata as a list or as text.

Source: envoy/service/ext_proc/v3/external_processor.proto; endpoint picker protocol 1.0.0 (proposal 004 of the
Inference Extension).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, TypeAlias

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
    StreamedBodyResponse,
    TrailersResponse,
)
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BoolValue

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

_PHASES: Final = {
    "request_headers": Phase.REQUEST,
    "request_body": Phase.REQUEST,
    "request_trailers": Phase.REQUEST,
    "response_headers": Phase.RESPONSE,
    "response_body": Phase.RESPONSE,
    "response_trailers": Phase.RESPONSE,
}
_STREAMED: Final = ProtocolConfiguration(
    request_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED, response_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED
)
_OPENS: Final[bytes] = ProcessingRequest(protocol_config=_STREAMED).SerializeToString()


def encode_part(part: Part, *, metadata: Metadata | None = None, opens: bool = False) -> bytes:
    """A ProcessingRequest. `opens` is for the first of a stream: it says that bodies are streamed both ways."""
    message: Any = ProcessingRequest()  # the stubs have no types
    prefix = part.phase.value
    match part:
        case HeadersPart():
            getattr(message, f"{prefix}_headers").CopyFrom(
                HttpHeaders(headers=_header_map(part.headers), end_of_stream=part.end_of_stream)
            )
        case BodyPart():
            body = getattr(message, f"{prefix}_body")
            body.body = part.chunk
            body.end_of_stream = part.end_of_stream
        case TrailersPart():
            getattr(message, f"{prefix}_trailers").CopyFrom(HttpTrailers(trailers=_header_map(part.trailers)))
    data: bytes = message.SerializeToString() + encode_context(metadata, opens=opens)
    return data


def encode_context(metadata: Metadata | None, *, opens: bool) -> bytes:
    """What a ProcessingRequest says besides its part; see `encode_part`."""
    if not metadata:
        return _OPENS if opens else b""
    message: Any = ProcessingRequest()
    _write_metadata(message.metadata_context.filter_metadata, metadata)
    data: bytes = message.SerializeToString()
    return data + _OPENS if opens else data


def decode_part(data: bytes) -> tuple[Part, Metadata]:
    """A part and the filter metadata that came with it, from a ProcessingRequest.

    Raises MessageUnreadable.
    """
    message: Any = _parsed(ProcessingRequest, data)
    return _part(message), _read_metadata(message.metadata_context.filter_metadata)


def _part(message: Any) -> Part:
    kind = message.WhichOneof("request")
    if kind is None:
        raise MessageUnreadable("a request of ext_proc holds neither headers, body nor trailers")
    held = getattr(message, kind)
    phase = _PHASES[kind]
    if isinstance(held, HttpHeaders):
        return HeadersPart(phase, _headers(held.headers), end_of_stream=held.end_of_stream)
    if isinstance(held, HttpBody):
        return BodyPart(phase, held.body, end_of_stream=held.end_of_stream)
    return TrailersPart(phase, _headers(held.trailers))


def _mode(number: int) -> BodyMode:
    """Modes that are not known came later, and have headers wait as well."""
    return BodyMode(number) if number in _MODES else BodyMode.FULL_DUPLEX


_MODES: Final = frozenset(BodyMode)


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


def decode_received(data: bytes) -> Received:
    """Everything that a ProcessingRequest tells.

    Raises MessageUnreadable.
    """
    message: Any = _parsed(ProcessingRequest, data)
    modes = None
    if message.HasField("protocol_config"):
        told = message.protocol_config
        modes = (_mode(told.request_body_mode), _mode(told.response_body_mode))
    attributes = {name: value for found in message.attributes.values() for name, value in _dict(found).items()}
    part = _part(message)
    metadata = _read_metadata(message.metadata_context.filter_metadata)
    return Received(part, metadata, modes, attributes, observes=message.observability_mode)


def encode_answer(answer: Answer, *, metadata: Metadata | None = None) -> bytes:
    """A ProcessingResponse, with dynamic metadata."""
    message: Any = ProcessingResponse()
    match answer:
        case HeadersAnswer():
            common = CommonResponse(clear_route_cache=answer.clears_route)
            if answer.replaces:
                common.status = CommonResponse.CONTINUE_AND_REPLACE
            if answer.body is not None:
                common.body_mutation.body = answer.body
            _write_changes(common.header_mutation, answer.changes)
            getattr(message, f"{answer.phase.value}_headers").CopyFrom(HeadersResponse(response=common))
        case BodyAnswer():
            common = CommonResponse(body_mutation=_body_mutation(answer)) if answer.chunk is not None else None
            if answer.changes or answer.clears_route:
                common = common or CommonResponse()
                common.clear_route_cache = answer.clears_route
                _write_changes(common.header_mutation, answer.changes)
            getattr(message, f"{answer.phase.value}_body").CopyFrom(BodyResponse(response=common))
        case TrailersAnswer():
            trailers = TrailersResponse()
            _write_changes(trailers.header_mutation, answer.changes)
            getattr(message, f"{answer.phase.value}_trailers").CopyFrom(trailers)
        case Immediate():
            message.immediate_response.status.code = answer.status
            message.immediate_response.body = answer.body
            message.immediate_response.details = answer.details
            _write_changes(message.immediate_response.headers, answer.changes)
    if metadata:
        for namespace, values in metadata.items():
            message.dynamic_metadata.update({namespace: dict(values)})
    data: bytes = message.SerializeToString()
    return data


def decode_answer(data: bytes) -> tuple[Answer | None, Metadata]:
    """An answer and its dynamic metadata, from a ProcessingResponse; None for one that asks for nothing.

    Raises MessageUnreadable.
    """
    message: Any = _parsed(ProcessingResponse, data)
    metadata = _dict(message.dynamic_metadata) if message.HasField("dynamic_metadata") else {}
    namespaces = {name: values for name, values in metadata.items() if isinstance(values, dict)}
    kind = message.WhichOneof("response")
    if kind is None:
        return None, namespaces
    held = getattr(message, kind)
    answer: Answer
    if isinstance(held, HeadersResponse):
        answer = _headers_answer(held.response, _PHASES[kind])
    elif isinstance(held, BodyResponse):
        answer = _body_answer(held.response, _PHASES[kind])
    elif isinstance(held, TrailersResponse):
        answer = TrailersAnswer(_PHASES[kind], _changes(held.header_mutation))
    else:
        answer = _immediate(held)
    return answer, namespaces


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


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MessageUnreadable(str(error)) from error


def _dict(struct: Any) -> dict[str, Any]:
    """A Struct as JSON has it. In a third of the time that the library takes, which refuses numbers that are none."""
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _dict(value.struct_value)
        case "list_value":
            return [_value(each) for each in value.list_value.values]
    return None


def _header_map(headers: Headers) -> Any:
    return HeaderMap(headers=[HeaderValue(key=name, raw_value=value) for name, value in headers])


def _headers(found: Any) -> Headers:
    return tuple((item.key.lower(), item.raw_value or item.value.encode()) for item in found.headers)


def _write_changes(mutation: Any, changes: Changes) -> None:
    if changes.set:
        mutation.set_headers.extend(
            HeaderValueOption(
                header=HeaderValue(key=item.name, raw_value=item.value),
                **({"append": _APPENDS} if item.action is Action.APPEND else {"append_action": int(item.action)}),
            )
            for item in changes.set
        )
    if changes.remove:
        mutation.remove_headers.extend(changes.remove)


def _changes(mutation: Any) -> Changes:
    if not (mutation.set_headers or mutation.remove_headers):
        return NO_CHANGES
    return Changes(
        set=tuple(
            SetHeader(item.header.key.lower(), item.header.raw_value or item.header.value.encode(), _action(item))
            for item in mutation.set_headers
        ),
        remove=tuple(name.lower() for name in mutation.remove_headers),
    )


def _action(option: Any) -> Action:
    """What is asked for by `append`, or else by `append_action`.

    Pickers leave both at their defaults and mean: overwrite. So does Envoy's filter, though the default of
    `append_action` reads as append.
    """
    if option.HasField("append"):
        return Action.APPEND if option.append.value else Action.OVERWRITE
    return Action(option.append_action) if option.append_action in _ACTIONS else Action.OVERWRITE


_ACTIONS: Final = frozenset(Action) - {Action.APPEND}
_APPENDS: Final = BoolValue(value=True)


def _body_mutation(answer: BodyAnswer) -> Any:
    if answer.is_streamed:
        streamed = StreamedBodyResponse(body=answer.chunk, end_of_stream=answer.end_of_stream)
        return BodyMutation(streamed_response=streamed)
    return BodyMutation(body=answer.chunk) if answer.chunk else BodyMutation(clear_body=True)


def _headers_answer(common: Any, phase: Phase) -> HeadersAnswer:
    mutation = common.body_mutation.WhichOneof("mutation")
    return HeadersAnswer(
        phase,
        _changes(common.header_mutation),
        body=common.body_mutation.body if mutation == "body" else b"" if mutation == "clear_body" else None,
        replaces=common.status == CommonResponse.CONTINUE_AND_REPLACE,
        clears_route=common.clear_route_cache,
    )


def _body_answer(common: Any, phase: Phase) -> BodyAnswer:
    changes = _changes(common.header_mutation)
    match common.body_mutation.WhichOneof("mutation"):
        case "body":
            return BodyAnswer(phase, common.body_mutation.body, changes=changes)
        case "clear_body" if common.body_mutation.clear_body:
            return BodyAnswer(phase, b"", changes=changes)
        case "streamed_response":
            streamed = common.body_mutation.streamed_response
            return BodyAnswer(
                phase, streamed.body, is_streamed=True, end_of_stream=streamed.end_of_stream, changes=changes
            )
    return BodyAnswer(phase, changes=changes)


def _immediate(held: Any) -> Immediate:
    return Immediate(
        status=held.status.code, body=bytes(held.body), changes=_changes(held.headers), details=held.details
    )


def _write_metadata(target: Any, metadata: Metadata) -> None:
    for namespace, values in metadata.items():
        target[namespace].update(dict(values))


def _read_metadata(found: Any) -> Metadata:
    return {namespace: _dict(struct) for namespace, struct in found.items()} if found else {}
