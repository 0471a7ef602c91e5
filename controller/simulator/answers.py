"""Answers in the shape of OpenAI's API, with vLLM's additions."""

import base64
import hashlib
import json
import struct
from collections.abc import Sequence as Items
from dataclasses import dataclass

from controller.simulator.engine import Sequence

EMBEDDING_DIMENSIONS = 64
DONE = b"data: [DONE]\n\n"
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def json_bytes(value: object) -> bytes:
    return _ENCODER.encode(value).encode()


def error_body(status: int, message: str, *, kind: str, param: str | None = None) -> bytes:
    return json_bytes({"error": {"message": message, "type": kind, "param": param, "code": status}})


def usage_of(sequence: Sequence) -> dict[str, object]:
    return {
        "prompt_tokens": sequence.prompt_tokens,
        "total_tokens": sequence.length,
        "completion_tokens": sequence.generated,
        "prompt_tokens_details": {"cached_tokens": sequence.cached or 0},
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """How one answer is written: as a chat or as a text completion, whole or in events."""

    is_chat: bool
    identifier: str
    created: int
    """Unix time in seconds."""
    model: str

    def whole(self, sequence: Sequence) -> bytes:
        text = sequence.answer.decode()
        content = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": _finish_reason(sequence)}
        kind = "chat.completion" if self.is_chat else "text_completion"
        return json_bytes({**self._head(kind), "choices": [choice], "usage": usage_of(sequence)})

    def opening(self) -> bytes:
        """The event before the first token: a chat names the role."""
        if not self.is_chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def token_event(self) -> tuple[bytes, bytes]:
        """What stands before and after the text in an event that is not the last: made once per answer, not per token.

        The generated words need no escapes in JSON.
        """
        before, after = self._event([self._choice("\0", None)]).split(b"\\u0000")
        return before, after

    def last_token(self, text: bytes, sequence: Sequence) -> bytes:
        return self._event([self._choice(text.decode(), _finish_reason(sequence))])

    def usage_event(self, sequence: Sequence) -> bytes:
        return self._event([], usage=usage_of(sequence))

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, object]:
        content = {"delta": {"content": text}} if self.is_chat else {"text": text}
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, object]], **more: object) -> bytes:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return b"data: %s\n\n" % json_bytes({**self._head(kind), "choices": choices, **more})

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.identifier, "object": kind, "created": self.created, "model": self.model}


def embeddings_body(
    sequences: Items[Sequence], *, identifier: str, created: int, model: str, as_base64: bool, dimensions: int
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


def _finish_reason(sequence: Sequence) -> str:
    return "stop" if sequence.stops else "length"


def _vector(text: bytes, dimensions: int) -> list[float]:
    """Numbers in [-1, 1) that depend on the text only."""
    octets = hashlib.shake_128(text).digest(dimensions)
    return [octet / 128 - 1 for octet in octets]
