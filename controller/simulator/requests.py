"""Bodies of requests, as far as the simulator reads them. Unknown fields are ignored, as vLLM does."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controller.simulator.tokens import TOKEN_BYTES, token_ids_to_bytes

_IMAGE_TOKENS = 256
"""What every content part that is not text counts for: an image of some 450 x 450 pixels."""

_Tokens = Annotated[int, Field(ge=1)]
_TokenIds = Annotated[list[int], Field(min_length=1)]
_Inputs = str | _TokenIds | Annotated[list[str], Field(min_length=1)] | Annotated[list[_TokenIds], Field(min_length=1)]
_MOST_ANSWERS: Final = 128
"""To one prompt, as OpenAI has it."""


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    """None and empty mean the base model."""


class StreamOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _Generating(Body):
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    ignore_eos: bool = False
    seed: int | None = None
    cache_salt: str | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_ANSWERS)] | None = 1
    stop: str | list[str] | None = None

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _options_suit_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")
        return self


class Part(BaseModel):
    """One part of a message that is not plain text."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    text: str = ""

    def as_text(self) -> bytes:
        if self.type in ("text", "input_text"):
            return self.text.encode()
        # Equal images are equal text, so that they share blocks.
        digest = hashlib.blake2b(repr(self.model_extra).encode()).digest()
        return digest * (_IMAGE_TOKENS * TOKEN_BYTES // len(digest))


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str
    content: str | list[Part] | None = None

    def as_text(self) -> bytes:
        if isinstance(self.content, list):
            content = b"".join(part.as_text() for part in self.content)
        else:
            content = (self.content or "").encode()
        return b"<|%s|>\n%s\n" % (self.role.encode(), content)


class ChatRequest(_Generating):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: _Tokens | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, None when the request sets no limit."""
        return self.max_completion_tokens or self.max_tokens

    def prompt_texts(self) -> list[bytes]:
        return [chat_text(self.messages)]


class CompletionRequest(_Generating):
    prompt: _Inputs
    max_tokens: _Tokens | None = 16
    """vLLM's default too; for a chat it is None there."""

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, None when the request sets no limit."""
        return self.max_tokens

    def prompt_texts(self) -> list[bytes]:
        return _input_texts(self.prompt)


class TokenizeRequest(Body):
    """Of a text or of a chat."""

    prompt: str | None = None
    messages: list[Message] | None = None

    @model_validator(mode="after")
    def _has_one_of_them(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("one of prompt and messages is required")
        return self

    def prompt_text(self) -> bytes:
        return chat_text(self.messages) if self.messages is not None else (self.prompt or "").encode()


class DetokenizeRequest(Body):
    tokens: list[int]


class EmbeddingRequest(Body):
    input: _Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=4096)] | None = None

    def texts(self) -> list[bytes]:
        return _input_texts(self.input)


def chat_text(messages: Sequence[Message]) -> bytes:
    return b"".join(message.as_text() for message in messages) + b"<|assistant|>\n"


def _input_texts(inputs: _Inputs) -> list[bytes]:
    if isinstance(inputs, str) or isinstance(inputs[0], int):
        return [_input_text(inputs)]
    return [_input_text(item) for item in inputs]


def _input_text(item: str | list[int]) -> bytes:
    return item.encode() if isinstance(item, str) else token_ids_to_bytes(item)
