"""OpenAI's Responses API, of text alone: what is asked for, and how the answer is written.

Nothing is stored, so there is no answer to go on from. Events are numbered, so no two are alike; the last one says all.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from controller.simulator.answers import json_bytes
from controller.simulator.pod import Generation
from controller.simulator.requests import Body, Message, chat_text

Json = dict[str, Any]  # Any: JSON has any shape


class Item(Message):
    """A message, or what else a conversation has, such as the call of a tool, which counts as what it holds."""

    role: str = "tool"


class ResponsesRequest(Body):
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = False
    seed: int | None = None
    cache_salt: str | None = None
    ignore_eos: bool = False

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, None when the request sets no limit."""
        return self.max_output_tokens

    def prompt_text(self) -> bytes:
        said = [Item(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        first = [Item(role="system", content=self.instructions)] if self.instructions else []
        return chat_text([*first, *said])


@dataclass(slots=True)
class ResponseEvents:
    """See `answers.Events`."""

    identifier: str
    created: int
    """Unix time in seconds."""
    model: str
    ending: bytes = b""
    _number: int = field(default=0, init=False)
    """Of the next event."""

    def whole(self, sequence: Generation) -> bytes:
        return json_bytes(self._response(sequence))

    def opening(self) -> bytes:
        response = self._response(None)
        part = {"type": "output_text", "text": "", "annotations": []}
        return b"".join([
            self._event("created", response=response),
            self._event("in_progress", response=response),
            self._event("output_item.added", output_index=0, item=self._item("", status="in_progress")),
            self._event("content_part.added", **self._place(), part=part),
        ])  # fmt: skip

    def pieces(self, index: int) -> list[bytes]:
        return []

    def token(self, index: int, text: bytes, sequence: Generation, *, number: int) -> bytes:
        return self._event("output_text.delta", **self._place(), delta=text.decode(), logprobs=[])

    def last_token(self, index: int, text: bytes, sequence: Generation) -> bytes:
        """All that is said at the end comes behind the token."""
        response = self._response(sequence)
        (item,) = response["output"]
        (part,) = item["content"]
        return b"".join([
            self.token(index, text, sequence, number=sequence.answer_tokens),
            self._event("output_text.done", **self._place(), text=part["text"], logprobs=[]),
            self._event("content_part.done", **self._place(), part=part),
            self._event("output_item.done", output_index=0, item=item),
            self._event("completed", response=response),
        ])  # fmt: skip

    def usage_event(self, sequences: Items[Generation]) -> bytes:
        return b""

    def _event(self, kind: str, **more: object) -> bytes:
        name = f"response.{kind}"
        event = json_bytes({"type": name, "sequence_number": self._number, **more})
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (name.encode(), event)

    def _place(self) -> Json:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    @property
    def _item_id(self) -> str:
        return "msg_" + self.identifier.removeprefix("resp_")

    def _item(self, text: str, *, status: str) -> Json:
        content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
        return {"type": "message", "id": self._item_id, "status": status, "role": "assistant", "content": content}

    def _response(self, sequence: Generation | None) -> Json:
        """None stands for one that is about to begin."""
        is_cut = sequence is not None and not sequence.stops
        status = "in_progress" if sequence is None else "incomplete" if is_cut else "completed"
        return {
            "id": self.identifier,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": None,
            "model": self.model,
            "output": [] if sequence is None else [self._item(sequence.text.decode(), status=status)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if sequence is None else _usage_of(sequence),
        }


def _usage_of(sequence: Generation) -> Json:
    return {
        "input_tokens": sequence.prompt_tokens,
        "input_tokens_details": {"cached_tokens": sequence.cached or 0},
        "output_tokens": sequence.generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sequence.length,
    }
