"""Answers in the shape of OpenAI's API, with vLLM's additions."""

import base64
import hashlib
import json
import struct
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Final, Protocol

from controller.simulator.pod import Generation

EMBEDDING_DIMENSIONS = 64
DONE = b"data: [DONE]\n\n"
TEXT: Final = "\0"
"""Stands for the text of a token where an event is split; see `split_at_text`."""
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def json_bytes(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def error_body(status: int, message: str, *, kind: str, param: str | None = None) -> bytes:
    return json_bytes({"error": {"message": message, "type": kind, "param": param, "code": status}})


def usage_of(sequences: Items[Generation], *, generated: int | None = None) -> dict[str, object]:
    """Of the answers to one request. Each prompt counts once, however many answers there are to it.

    `generated` counts other tokens of answers than all that there are.
    """
    prompts = [sequence for sequence in sequences if sequence.is_first]
    prompt_tokens = sum(sequence.prompt_tokens for sequence in prompts)
    if generated is None:
        generated = sum(sequence.generated for sequence in sequences)
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + generated,
        "completion_tokens": generated,
        "prompt_tokens_details": {"cached_tokens": sum(sequence.cached or 0 for sequence in prompts)},
    }


class Events(Protocol):
    """How a streamed answer is written, as server-sent events. `index` is that of a sequence of the request."""

    @property
    def ending(self) -> bytes:
        """What comes last."""
        ...

    def opening(self) -> bytes:
        """What comes before the first token."""
        ...

    def pieces(self, index: int) -> list[bytes]:
        """What stands around the text in an event that is not the last: made once per answer, not per token.

        The generated words need no escapes in JSON. Empty where no two events are alike.
        """
        ...

    def token(self, index: int, text: bytes, sequence: Generation, *, number: int) -> bytes:
        """The event of a token that is not the last, where there are no pieces. `number` counts from 1."""
        ...

    def last_token(self, index: int, text: bytes, sequence: Generation) -> bytes: ...

    def usage_event(self, sequences: Items[Generation]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """How one answer is written: as a chat or as a text completion, whole or in events."""

    is_chat: bool
    identifier: str
    created: int
    """Unix time in seconds."""
    model: str
    choices: int = 1
    has_running_usage: bool = False
    """Whether each event says how many tokens there are so far."""
    ending: bytes = DONE

    def whole(self, sequences: Items[Generation]) -> bytes:
        choices = [self._whole_choice(index, sequence) for index, sequence in enumerate(sequences)]
        kind = "chat.completion" if self.is_chat else "text_completion"
        return json_bytes({**self._head(kind), "choices": choices, "usage": usage_of(sequences)})

    def opening(self) -> bytes:
        """A chat names the role of each choice."""
        if not self.is_chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self._event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])
            for index in range(self.choices)
        )

    def pieces(self, index: int) -> list[bytes]:
        return [] if self.has_running_usage else split_at_text(self._event([self._choice(index, TEXT)]))

    def token(self, index: int, text: bytes, sequence: Generation, *, number: int) -> bytes:
        usage = {"usage": usage_of([sequence], generated=number)} if self.has_running_usage else {}
        return self._event([self._choice(index, text.decode())], **usage)

    def last_token(self, index: int, text: bytes, sequence: Generation) -> bytes:
        usage = {"usage": usage_of([sequence])} if self.has_running_usage else {}
        return self._event([self._choice(index, text.decode(), sequence)], **usage)

    def usage_event(self, sequences: Items[Generation]) -> bytes:
        return self._event([], usage=usage_of(sequences))

    def _whole_choice(self, index: int, sequence: Generation) -> dict[str, object]:
        text = sequence.text.decode()
        content = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        return {"index": index, **content, "logprobs": None, **_ending(sequence)}

    def _choice(self, index: int, text: str, ended: Generation | None = None) -> dict[str, object]:
        content = {"delta": {"content": text}} if self.is_chat else {"text": text}
        ending = {"finish_reason": None} if ended is None else _ending(ended)
        return {"index": index, **content, "logprobs": None, **ending}

    def _event(self, choices: list[dict[str, object]], **more: object) -> bytes:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return event({**self._head(kind), "choices": choices, **more})

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.identifier, "object": kind, "created": self.created, "model": self.model}


def event(value: object) -> bytes:
    return b"data: %s\n\n" % json_bytes(value)


def split_at_text(written: bytes) -> list[bytes]:
    """What is written around each `TEXT`."""
    return written.split(b"\\u0000")


def embeddings_body(
    sequences: Items[Generation], *, identifier: str, created: int, model: str, as_base64: bool, dimensions: int
) -> bytes:
    items = []
    for index, sequence in enumerate(sequences):
        vector = _vector(sequence.prompt, dimensions)
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        items.append({"object": "embedding", "index": index, "embedding": packed if as_base64 else vector})
    tokens = sum(sequence.prompt_tokens for sequence in sequences)
    cached = sum(sequence.cached or 0 for sequence in sequences)
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    head = {"id": identifier, "object": "list", "created": created, "model": model}
    return json_bytes({**head, "data": items, "usage": usage})


def models_body(models: Items[str], *, created: int, max_context: int) -> bytes:
    """`models` begins with the base model; the others are its adapters."""
    base = models[0]
    cards = [
        {
            "id": model,
            "object": "model",
            "created": created,
            "owned_by": "infergate-simulator",
            "root": model,
            "parent": None if model == base else base,
            "max_model_len": max_context if model == base else None,
        }
        for model in models
    ]
    return json_bytes({"object": "list", "data": cards})


def _ending(sequence: Generation) -> dict[str, object]:
    return {"finish_reason": "stop" if sequence.stops else "length", "stop_reason": sequence.stop_reason}


def _vector(text: bytes, dimensions: int) -> list[float]:
    """Numbers in [-1, 1) that depend on the text only."""
    octets = hashlib.shake_128(text).digest(dimensions)
    return [octet / 128 - 1 for octet in octets]
