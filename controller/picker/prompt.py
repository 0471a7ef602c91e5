"""What a request asks a model, read once from its body, and its prompt as a stream of bytes.

Only the fields that count are decoded; what was said stays in the bytes that the client sent (`msgspec.Raw`), which
takes 7 us in 16 KB. The stream holds the prompt in the order in which a model sees it, so that a conversation that
grows keeps its beginning. What is no prompt is no error here: the model server answers it.
"""

import json
import re
from array import array
from itertools import chain, islice
from typing import Final, cast

import msgspec
import xxhash
from msgspec.structs import astuple

KEPT: Final = 8 * 1024 * 1024
"""Bytes of a body that are read; the longest context of a model is about half of that as text."""
MEDIA_BYTES: Final = 4096
"""Bytes, so 1,024 tokens, that an image or another large part without text counts for. An image of 1024 x 1024 makes
1,000 tokens and more, and some 100 KB to 1 MB of JSON."""

_PARSED_TWICE: Final = 256 * 1024
"""Bytes of a body in which the model is looked for although the rest is odd. It takes 1.4 ms, else 0.4."""

_PATHS: Final = frozenset({"completions", "embeddings", "responses", "messages"})
_TELL_IN_STREAMS: Final = frozenset({"responses", "messages"})
"""Their streams end with their usage, asked or not."""
_ASSISTANT: Final = msgspec.Raw(b'"assistant"')
_LEAST: Final = 3
"""Messages of a conversation that goes on: a question, an answer and another question."""
_FOLLOW: Final = 16
"""Messages from the end among which an answer is looked for: results of tools follow it, or a question."""
_NOTHING: Final = cast(msgspec.Raw, b"")
"""A field that a body does not have: not a Raw, since joining one of those takes 40 ns and bytes take 5."""
_MARK: Final = b"\xef\xbb\xbf"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """What a body asks. Shows nothing of what was said."""

    model: str = ""
    """As the client names it; empty when there is none."""
    stream: bytes = b""
    """The prompt; empty when there is none."""
    is_conversation: bool = False
    """Whether it is in messages, so that the next one repeats it with the answer."""
    asked: int = 0
    """Bytes of the stream before the model's last answer in it: an earlier prompt. 0 where there is no answer."""
    answered: int = 0
    """Bytes up to the end of that answer."""
    root: int = 0
    """Differs between models, adapters and cache salts, which share no cache."""
    is_streamed: bool = False
    """Whether the answer is to come token by token."""
    max_tokens: int | None = None
    """Of the answer."""
    tells_usage: bool = False
    """Whether the answer says how many tokens it took: one that is streamed by OpenAI's older APIs is to be asked."""

    def __repr__(self) -> str:
        return f"Prompt(model={self.model!r}, bytes={len(self.stream)})"


NO_PROMPT: Final = Prompt()


class _Message(msgspec.Struct, gc=False):
    """Its fields in the order in which they are part of the stream."""

    role: msgspec.Raw = _NOTHING
    name: msgspec.Raw = _NOTHING
    content: msgspec.Raw = _NOTHING
    reasoning_content: msgspec.Raw = _NOTHING
    tool_calls: msgspec.Raw = _NOTHING
    tool_call_id: msgspec.Raw = _NOTHING


class _Body(msgspec.Struct, gc=False):
    """The fields of every API that count; each API has some of them."""

    model: str | None = None
    stream: bool | None = None
    cache_salt: str | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    max_output_tokens: int | float | None = None
    stream_options: msgspec.Raw = _NOTHING
    instructions: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    system: msgspec.Raw = _NOTHING
    messages: list[_Message] | None = None
    prompt: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    content: msgspec.Raw = _NOTHING
    """Of a message, or of what a tool gave to Anthropic's API."""
    output: msgspec.Raw = _NOTHING
    """Of a tool, in OpenAI's Responses."""


_BODY: Final = msgspec.json.Decoder(_Body)
_PARTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_PART: Final = msgspec.json.Decoder(_Part)
_STREAM_OPTIONS: Final = msgspec.json.Decoder(_StreamOptions | None)
_TOKENS: Final = msgspec.json.Decoder(list[int])
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text", "tool_use", "tool_result", "thinking", "message"})


def read_prompt(path: str, body: bytes, *, served: str = "") -> Prompt:
    """The prompt in a body of OpenAI's or Anthropic's APIs; without prompt when the path or the body is another.

    `served` is the model that computes it, where that is not the one that the body names.
    """
    kind = path.rpartition("/")[2]
    if kind not in _PATHS:
        return NO_PROMPT
    body = unmarked(body)
    try:
        asked = _BODY.decode(body)
    except (ValueError, RecursionError):
        return Prompt(model=model_alone(body)) if len(body) <= _PARSED_TWICE else NO_PROMPT
    model = asked.model or ""
    most = asked.max_completion_tokens or asked.max_output_tokens or asked.max_tokens
    stream = _stream(asked)
    before, answered = _last_answer(asked, end=len(stream))
    return Prompt(
        model=model,
        stream=stream,
        is_conversation=bool(asked.messages),
        asked=before,
        answered=answered,
        root=xxhash.xxh3_64_intdigest(f"{served or model}\0{asked.cache_salt or ''}".encode("utf-8", "replace")),
        is_streamed=asked.stream is True,
        max_tokens=int(most) if most and 0 < most < 2**53 else None,
        tells_usage=asked.stream is not True or kind in _TELL_IN_STREAMS or _asks_for_usage(asked.stream_options),
    )


def unmarked(body: bytes) -> bytes:
    """Without a byte order mark, which some programs write and model servers pass over. Source: RFC 8259, 8.1."""
    return body[len(_MARK) :] if body.startswith(_MARK) else body


def model_alone(body: bytes) -> str:
    """The model of a body whose other fields are of unknown types, or hold half of a surrogate pair, as a cut emoji.

    Model servers take such bodies, and so does the reader that routes by the model. The last of several counts for all.
    """
    try:
        read = json.loads(body.decode("utf-8", "surrogateescape"), parse_constant=_refused)
    except (ValueError, RecursionError):
        return ""
    model = read.get("model") if isinstance(read, dict) else None
    return model if isinstance(model, str) and not _SURROGATE.search(model) else ""


def _refused(constant: str) -> None:
    """NaN and its kin are no JSON."""
    raise ValueError(constant)


def _asks_for_usage(options: msgspec.Raw) -> bool:
    try:
        asked = _STREAM_OPTIONS.decode(options) if options else None
    except ValueError:
        return False
    return asked is not None and asked.include_usage is True


def _stream(asked: _Body) -> bytes:
    pieces: list[bytes | msgspec.Raw] = [asked.instructions, asked.tools, asked.system]
    messages = asked.messages or ()
    for one in messages:
        if len(one.content) > MEDIA_BYTES:
            one.content = cast(msgspec.Raw, _without_media(one.content))
    pieces += chain.from_iterable(map(astuple, messages))
    given = _text_or_tokens(asked.input)
    if len(given) > MEDIA_BYTES and given is asked.input:
        given = _items_without_media(given)
    pieces += (_text_or_tokens(asked.prompt), given)
    return b"".join(pieces)


def _last_answer(asked: _Body, *, end: int) -> tuple[int, int]:
    """Where the model's last answer begins and ends in a stream of so many bytes; zeros where none is near its end."""
    messages = asked.messages
    if messages is None or len(messages) < _LEAST or asked.prompt or asked.input:
        # No API has messages beside these.
        return 0, 0
    for back, one in enumerate(islice(reversed(messages), _FOLLOW)):
        if one.role == _ASSISTANT:
            end -= sum(_size(later) for later in messages[len(messages) - back :])
            return end - _size(one), end
    return 0, 0


def _size(message: _Message) -> int:
    """Bytes in the stream."""
    return sum(map(len, astuple(message)))


def _without_media(content: msgspec.Raw, *, is_within: bool = False) -> bytes | msgspec.Raw:
    """Content in parts, with those that hold no text as what tells them apart, in the size that they count for.

    `is_within` says that it is the content of a part, and that its parts are not looked into.
    """
    text = bytes(content)
    if text[:1] != b"[":
        return content
    pieces: list[bytes | msgspec.Raw] = []
    for part in _PARTS.decode(text):
        if len(part) <= MEDIA_BYTES:
            pieces.append(part)
        elif not _is_text(part):
            pieces.append(xxhash.xxh3_64_digest(part) * (MEDIA_BYTES // 8))
        else:
            pieces.append(part if is_within else _emptied(part))
    return b"".join(pieces)


def _emptied(part: msgspec.Raw) -> bytes | msgspec.Raw:
    """A part, or a message, whose own content is without media. The rest stands as it does in the body."""
    try:
        read = _PART.decode(part)
    except ValueError:
        return part
    for content in (read.content, read.output):
        if len(content) > MEDIA_BYTES:
            return bytes(part).replace(bytes(content), _without_media(content, is_within=True), 1)
    return part


def _items_without_media(given: msgspec.Raw) -> bytes | msgspec.Raw:
    """The items of OpenAI's Responses. What is between them stays, as it does in a shorter conversation."""
    text = bytes(given)
    if text[:1] != b"[":
        return given
    pieces: list[bytes | msgspec.Raw] = []
    end = 0
    for item in _PARTS.decode(text):
        if len(item) > MEDIA_BYTES:
            start = text.index(bytes(item), end)
            pieces += (text[end:start], _emptied(item))
            end = start + len(item)
    pieces.append(text[end:])
    return b"".join(pieces)


def _is_text(part: msgspec.Raw) -> bool:
    try:
        return _PART.decode(part).type in _TEXT_PARTS
    except ValueError:
        return True


def _text_or_tokens(value: msgspec.Raw) -> bytes | msgspec.Raw:
    """Text as it stands in the body, token ids as four bytes each: a prompt counts four bytes for a token."""
    if not value or bytes(memoryview(value)[:1]) != b"[":
        return value
    try:
        return array("I", _TOKENS.decode(value)).tobytes()
    except (ValueError, OverflowError):
        return value
