"""What an answer says of its tokens, read from its beginning and its end while it passes.

As `nginx/njs/usage.js` reads it: what model servers write before or after their usage is shorter than what is kept.
"""

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

KEPT: Final = 2048
"""Bytes of the beginning and of the end of an answer."""
_MOST: Final = 1_000_000_000
_KEY: Final = b'"usage"'
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
"""Objects in it hold no others."""

Json = Mapping[str, Any]  # Any: as a model server wrote it


class Tokens(NamedTuple):
    """Each None where the answer does not say."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


NO_TOKENS: Final = Tokens()


class Ends:
    """The beginning and the end of an answer that comes in pieces."""

    __slots__ = ("_head", "_is_stream", "_size", "_tail")

    def __init__(self, *, is_stream: bool = False) -> None:
        """`is_stream`: it is a stream of events."""
        self._is_stream = is_stream
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._size = 0
        """Bytes of the tail."""

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        if len(self._head) < KEPT:
            self._head += piece[: KEPT - len(self._head)]
        kept = piece[-KEPT:]
        self._tail.append(kept)
        self._size += len(kept)
        while self._size - len(self._tail[0]) >= KEPT:
            self._size -= len(self._tail.popleft())

    def tokens(self) -> Tokens:
        """What the whole answer says."""
        usage = _usage_in(b"".join(self._tail))
        if usage is None and not self._is_stream:
            # Some APIs tell of it before a long list of results.
            usage = _usage_in(self._head)
        if usage is None:
            return NO_TOKENS
        if "prompt_tokens" in usage or "input_tokens" in usage:
            return _tokens_of(usage)
        # Anthropic's streams tell of the prompt when they begin, and of the answer when they end.
        return _tokens_of({**(_usage_in(self._head) or {}), **usage})


def ends_of(*, status: int, encoding: bytes | None, kind: bytes | None) -> Ends | None:
    """For an answer with such a status, `Content-Encoding` and `Content-Type`; None for one that is not read.

    That is one with an encoding, and one that is no success.
    """
    if status >= 300 or encoding:
        return None
    return Ends(is_stream=kind is not None and b"event-stream" in kind.lower())


def _usage_in(text: bytes) -> Json | None:
    """The last usage that is written there. Text of a model cannot look like it: its quotes are escaped."""
    at = text.rfind(_KEY)
    while at >= 0:
        found = _USAGE.match(text, at)
        if found:
            try:
                read = msgspec.json.decode(found[1])
            except ValueError:
                return None
            return read if isinstance(read, dict) else None
        at = text.rfind(_KEY, 0, at)
    return None


def _tokens_of(usage: Json) -> Tokens:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    if cached is None:
        cached = usage.get("cache_read_input_tokens")
    completion = usage.get("completion_tokens")
    return Tokens(
        prompt=_prompt(usage),
        cached=_count(cached),
        completion=_count(usage.get("output_tokens") if completion is None else completion),
    )


def _prompt(usage: Json) -> int | None:
    """Where there is only a total, as of rerankers, nothing was generated."""
    if "prompt_tokens" in usage:
        return _count(usage["prompt_tokens"])
    if "input_tokens" in usage or "output_tokens" in usage:
        return _input(usage)
    return _count(usage.get("total_tokens"))


def _input(usage: Json) -> int | None:
    """Anthropic's input leaves out what a cache had or got."""
    counted = _count(usage.get("input_tokens"))
    if counted is None:
        return None
    others = (_count(usage.get(f"cache_{name}_input_tokens")) or 0 for name in ("read", "creation"))
    return counted + sum(others)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST else None
