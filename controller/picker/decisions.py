"""The last decisions, for a reader: what was asked in sizes, what was chosen, and how it ended. Never what was said.

A pick adds one small struct of what is at hand; everything that is for a reader is made when somebody reads.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.requests import PickRequest

KEPT: Final = 1000
"""Decisions: about 0.5 MB, and at most 6 MB where every one of them was asked to explain itself."""
_ID: Final = b"x-request-id"


class Decision(msgspec.Struct, frozen=True, gc=False):
    """One pick, or why there was none. A msgspec struct: made for every request, 0.3 us."""

    at: float
    """Of the picker's clock."""
    id: bytes
    """As the client and the access log know the request."""
    pool: str
    size: int
    """Bytes of the body."""
    prompt_bytes: int
    chunks: int
    """Of the prompt, whose hashes were looked up."""
    cached_bytes: int
    """Of the prompt, what the chosen endpoint had by its index."""
    candidates: int
    """Endpoints before the filters."""
    tried: int
    """Endpoints that failed the request before."""
    scores: tuple[Sequence[str], Sequence[float]] | None
    """Scorers, and what each said of the chosen endpoint; None where there was nothing to choose."""
    waited: float
    """Seconds in the queue."""
    outcome: str
    choice: str
    """`ip:port`; empty where it was refused."""
    explanation: bytes
    """JSON, for a request that asked; else empty."""
    model: str
    """As the client names it; only where a rewrite has a model for it, else empty."""
    target: str
    """What it was given instead."""


class DecisionView(msgspec.Struct, frozen=True, rename="camel"):
    """A decision for a reader."""

    time: str
    """RFC 3339, in UTC."""
    request_id: str
    pool: str
    outcome: str
    choice: str | None
    waited_ms: float
    tries: int
    candidates: int
    scores: dict[str, float]
    """Of the chosen endpoint, before their weights."""
    body_bytes: int
    prompt_tokens: int
    """Estimated, as all tokens here."""
    cached_tokens: int
    chunks: int
    explanation: msgspec.Raw | None
    model: str | None
    """What a rewrite has another model for; None where there is no rewrite."""
    target: str | None
    """The model that it was given."""


class Decisions:
    """The last decisions of all pools."""

    def __init__(self, clock: Callable[[], float], *, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._kept)

    def add(
        self,
        request: PickRequest,
        *,
        at: float,
        outcome: str,
        choice: str = "",
        waited: float = 0.0,
        explanation: bytes = b"",
    ) -> None:
        """Note how a request ended here."""
        self._kept.append(
            Decision(
                at,
                request.headers.get(_ID) or request.id.encode("latin-1"),
                request.pool,
                request.size,
                request.prompt_bytes,
                len(request.hashes),
                request.cached_bytes,
                request.candidates,
                len(request.tried),
                request.scores,
                waited,
                outcome,
                choice,
                explanation,
                request.model if request.target else "",
                request.target,
            )
        )

    def view(self, *, pool: str | None, limit: int) -> tuple[DecisionView, ...]:
        """The last of them, newest first; of one pool, or of all."""
        offset = self._wall() - self._clock()
        found: list[DecisionView] = []
        for decision in reversed(self._kept):
            if len(found) >= limit:
                break
            if pool is None or decision.pool == pool:
                found.append(_view(decision, offset=offset))
        return tuple(found)


def _view(decision: Decision, *, offset: float) -> DecisionView:
    at = datetime.fromtimestamp(decision.at + offset, UTC)
    names, values = decision.scores or ((), ())
    return DecisionView(
        time=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        request_id=decision.id.decode("latin-1"),
        pool=decision.pool,
        outcome=decision.outcome,
        choice=decision.choice or None,
        waited_ms=round(decision.waited * 1000, 1),
        tries=decision.tried,
        candidates=decision.candidates,
        scores={name: round(value, 6) for name, value in zip(names, values, strict=True)},
        body_bytes=decision.size,
        prompt_tokens=decision.prompt_bytes // BYTES_PER_TOKEN,
        cached_tokens=decision.cached_bytes // BYTES_PER_TOKEN,
        chunks=decision.chunks,
        explanation=msgspec.Raw(decision.explanation) if decision.explanation else None,
        model=decision.model or None,
        target=decision.target or None,
    )
