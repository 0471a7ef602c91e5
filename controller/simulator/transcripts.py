"""Transcriptions of audio: what is asked for, and how the answer is written.

A streamed one has events that clients of either kind read. OpenAI's have a `type` and the text beside it; vLLM's are
chunks with `choices`, as those of a chat. Here each is both.
"""

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import model_validator

from controller.simulator.answers import DONE, TEXT, event, json_bytes, split_at_text, usage_of
from controller.simulator.pod import Generation
from controller.simulator.requests import Body

_BYTES_PER_SECOND = 32_000
"""16 bit samples at 16 kHz, one channel."""
_MOST_ANSWER_TOKENS = 448
"""Whisper's longest answer."""
_SPOKEN_TOKENS_PER_SECOND = 4


class TranscriptionRequest(Body):
    """The fields of a form beside the file."""

    response_format: Literal["json", "text", "verbose_json"] = "json"
    stream: bool = False
    stream_include_usage: bool = False

    @model_validator(mode="after")
    def _format_suits_stream(self) -> Self:
        if self.stream and self.response_format == "verbose_json":
            raise ValueError("verbose_json format doesn't support streaming case")
        return self


def seconds_of(audio: bytes) -> float:
    return len(audio) / _BYTES_PER_SECOND


def spoken_tokens(audio: bytes) -> int:
    """Tokens of what is said in it, 1 or more."""
    return max(1, min(_MOST_ANSWER_TOKENS, math.ceil(seconds_of(audio) * _SPOKEN_TOKENS_PER_SECOND)))


def transcript_body(sequence: Generation, *, seconds: float) -> bytes:
    return json_bytes({"text": _text_of(sequence), "usage": {"type": "duration", "seconds": math.ceil(seconds)}})


def transcript_text(sequence: Generation) -> bytes:
    return _text_of(sequence).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class TranscriptEvents:
    """See `answers.Events`."""

    identifier: str
    created: int
    """Unix time in seconds."""
    model: str
    ending: bytes = DONE

    def opening(self) -> bytes:
        return b""

    def pieces(self, index: int) -> list[bytes]:
        return split_at_text(self._delta(TEXT))

    def token(self, index: int, text: bytes, sequence: Generation, *, number: int) -> bytes:
        return self._delta(text.decode())

    def last_token(self, index: int, text: bytes, sequence: Generation) -> bytes:
        """The text of it all comes behind the token."""
        usage = usage_of([sequence])
        done = {
            "type": "transcript.text.done",
            "text": _text_of(sequence),
            "usage": {
                "type": "tokens",
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            },
        }
        return self._delta(text.decode().rstrip(), finish_reason="stop") + event(done)

    def usage_event(self, sequences: Items[Generation]) -> bytes:
        return event({**self._head(), "choices": [], "usage": usage_of(sequences)})

    def _delta(self, text: str, **more: object) -> bytes:
        choice = {"delta": {"content": text}, **more}
        return event({"type": "transcript.text.delta", "delta": text, **self._head(), "choices": [choice]})

    def _head(self) -> dict[str, object]:
        return {
            "id": self.identifier,
            "object": "transcription.chunk",
            "created": self.created,
            "model": self.model,
        }


def _text_of(sequence: Generation) -> str:
    return sequence.text.decode().strip()
