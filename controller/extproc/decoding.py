"""Messages of ext_proc, from bytes on the wire.

Headers are read as the field sends them: a value in `raw_value` or in `value`.
"""

from typing import Any, Final

from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from controller.extproc.messages import (
    NO_CHANGES,
    Action,
    Answer,
    BodyAnswer,
    BodyMode,
    BodyPart,
    Changes,
    Headers,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    MessageUnreadable,
    Metadata,
    Part,
    Phase,
    Received,
    SetHeader,
    TrailersAnswer,
    TrailersPart,
)

_PHASES: Final = {
    "request_headers": Phase.REQUEST,
    "request_body": Phase.REQUEST,
    "request_trailers": Phase.REQUEST,
    "response_headers": Phase.RESPONSE,
    "response_body": Phase.RESPONSE,
    "response_trailers": Phase.RESPONSE,
}
_MODES: Final = frozenset(BodyMode)
_ACTIONS: Final = frozenset(Action) - {Action.APPEND}


def decode_part(data: bytes) -> tuple[Part, Metadata]:
    """A part and the filter metadata that came with it, from a ProcessingRequest.

    Raises MessageUnreadable.
    """
    message: Any = _parsed(ProcessingRequest, data)
    return _part(message), _read_metadata(message.metadata_context.filter_metadata)


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


def decode_answer(data: bytes) -> tuple[Answer | None, Metadata]:
    """An answer and its dynamic metadata, from a ProcessingResponse; None for one that asks for nothing.

    Raises MessageUnreadable.
    """
    message: Any = _parsed(ProcessingResponse, data)
    metadata = _dict(message.dynamic_metadata) if message.HasField("dynamic_metadata") else {}
    namespaces = {name: values for name, values in metadata.items() if isinstance(values, dict)}
    kind = message.WhichOneof("response")
    if kind is None:
        if len(UnknownFieldSet(message)):
            # The answer may be what is not known; to wait for another would be in vain.
            raise MessageUnreadable("a response of ext_proc holds none of the known answers")
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


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MessageUnreadable(str(error)) from error


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


def _headers(found: Any) -> Headers:
    return tuple((item.key.lower(), item.raw_value or item.value.encode()) for item in found.headers)


def _read_metadata(found: Any) -> Metadata:
    return {namespace: _dict(struct) for namespace, struct in found.items()} if found else {}


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
