"""Messages of ext_proc, as bytes on the wire.

`wire` makes the same bytes without the stubs, for the messages that every exchange consists of.
"""

from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, HeaderValueOption
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
    StreamedBodyResponse,
    TrailersResponse,
)
from google.protobuf.wrappers_pb2 import BoolValue

from controller.extproc.messages import (
    Action,
    Answer,
    BodyAnswer,
    BodyPart,
    Changes,
    Headers,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    Metadata,
    Part,
    TrailersAnswer,
    TrailersPart,
)

_STREAMED: Final = ProtocolConfiguration(
    request_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED, response_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED
)
_OPENS: Final[bytes] = ProcessingRequest(protocol_config=_STREAMED).SerializeToString()
_APPENDS: Final = BoolValue(value=True)


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


def _header_map(headers: Headers) -> Any:
    return HeaderMap(headers=[HeaderValue(key=name, raw_value=value) for name, value in headers])


def _write_metadata(target: Any, metadata: Metadata) -> None:
    for namespace, values in metadata.items():
        target[namespace].update(dict(values))


def _body_mutation(answer: BodyAnswer) -> Any:
    if answer.is_streamed:
        streamed = StreamedBodyResponse(body=answer.chunk, end_of_stream=answer.end_of_stream)
        return BodyMutation(streamed_response=streamed)
    return BodyMutation(body=answer.chunk) if answer.chunk else BodyMutation(clear_body=True)


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
