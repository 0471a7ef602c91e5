"""Bodies of chat requests of a given size."""

import json
import random
from typing import Final

_PROSE: Final = (
    "the router sends each request to a model server that has most of its prompt in the cache and little work in its "
    "queue so that the first token of an answer comes soon and those who wait there are not held up for long"
)
_SYSTEM: Final = "You answer questions about a system in production. Be brief, and say so when you do not know. "
_TURN: Final = 1200
"""Bytes of one message in a long conversation."""


def chat_body(size: int, *, seed: int = 0) -> bytes:
    """A chat completion request of exactly `size` bytes, at least 400.

    One system message and turns of user and assistant; the same seed gives the same bytes. Raises ValueError when the
    size is too small.
    """
    words = random.Random(seed)
    messages = [{"role": "system", "content": _SYSTEM}]
    # The braces and names of one more message take 40 bytes or so.
    while (left := size - len(_encoded(messages)) - 50) > 0:
        role = "assistant" if messages[-1]["role"] == "user" else "user"
        messages.append({"role": role, "content": _text(min(left, _TURN), words=words)})
    missing = size - len(_encoded(messages))
    if missing < 0 or len(messages) < 2:
        raise ValueError(f"a chat body cannot be of {size} bytes")
    messages[-1]["content"] += "." * missing
    return _encoded(messages)


def _encoded(messages: list[dict[str, str]]) -> bytes:
    body = {"model": "llama-3.1-8b-instruct", "messages": messages, "max_tokens": 256, "temperature": 0.7}
    return json.dumps(body).encode()


def _text(size: int, *, words: random.Random) -> str:
    vocabulary = _PROSE.split()
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(words.choice(vocabulary))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:size]
