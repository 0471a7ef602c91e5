"""What all exchanges of a server share: who chooses, what is in flight, and the memory that their bodies may take."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from controller.completions import Completion, FirstByte
from controller.picker.choosing import Choosing
from controller.picker.chunks import OFFSETS
from controller.picker.endpoints import Endpoint, Sent
from controller.picker.ext_proc.verdicts import Verdict
from controller.picker.health import Failure
from controller.picker.metrics import State
from controller.picker.replay.recorder import Recorder
from controller.picker.requests import PickRequest
from controller.picker.scheduling.matching import chunks_at, remember

UNKNOWN: Final = ""
"""The pool of a request when there are several and none was named."""


class End(StrEnum):
    """How an exchange ended; the label of the metric."""

    WHOLE = "whole"
    """The answer passed to its end."""
    ANSWERED = "answered"
    """The picker answered the client itself."""
    WITHOUT_RESPONSE = "without_response"
    """The gateway ended the stream before an answer: the client hung up, or the gateway sends no response phase."""
    CUT = "cut"
    """The gateway ended the stream within the answer."""
    UNREADABLE = "unreadable"
    """A message was none of the protocol, or came where it cannot."""
    FAILED = "failed"
    """By a fault of the picker, which the log tells."""
    EMPTY = "empty"
    """Nothing was asked."""


@dataclass
class Desk:
    """The picker as exchanges see it."""

    choosing: Choosing[Verdict]
    state: State
    pool: str
    """`namespace/name` of the pool that is served; empty for the only one there is."""
    body_memory: int
    """Bytes of request bodies in hand."""
    recorder: Recorder | None = None
    held: int = 0
    """Bytes of bodies in hand."""
    open: int = 0
    """Streams."""
    ended: Counter[End] = field(default_factory=Counter)

    @property
    def clock(self) -> Callable[[], float]:
        return self.state.clock

    def pool_name(self) -> str:
        """The pool of every request."""
        if self.pool:
            return self.pool
        pools = self.state.table.pools
        return next(iter(pools)) if len(pools) == 1 else UNKNOWN

    def reads_usage(self, pool: str) -> bool:
        """Whether the pool's policy has the tokens of answers read."""
        known = self.state.table.pools.get(pool)
        return known is not None and known.policy.usage

    def began(self, request: PickRequest, *, waited: float) -> None:
        """The first byte of a streamed answer passed, so many seconds after the pick."""
        self.state.completions.begin(request.id, waited=waited, now=self.clock())
        if self.recorder is not None:
            self.recorder.began(msgspec.json.encode(FirstByte(request.id, waited)))

    def finished(self, completion: Completion) -> None:
        """A picked request is over."""
        self.state.completions.end(completion, now=self.clock())
        if self.recorder is not None:
            self.recorder.ended(msgspec.json.encode(completion))
        self.state.flow.changed(completion.pool)

    def served(self, request: PickRequest, address: str, *, was: Endpoint, listed: frozenset[str]) -> Endpoint:
        """The gateway says which endpoint answers. The count moves there; `listed` are the fallbacks it was given.

        Returns the endpoint that the request is counted at.
        """
        pool = self.state.table.pools.get(request.pool)
        endpoint = pool.by_address.get(address) if pool is not None else None
        if endpoint is None or endpoint is was:
            # A proxy on the way, or an address that is spelt in another way.
            return was
        sent = self.state.in_flight.end(request.id)
        if sent is None:
            return was
        now = self.clock()
        if address in listed:
            # It stands behind the first: that one was tried in vain.
            was.health.failed(Failure.UNAVAILABLE, request=request.id, now=now)
        self.state.in_flight.start(request.id, _moved(sent, request, endpoint, now=now))
        remember(request, endpoint)
        return endpoint


def _moved(sent: Sent, request: PickRequest, endpoint: Endpoint, *, now: float) -> Sent:
    matched = OFFSETS[chunks_at(request, endpoint)] if request.hashes else 0
    return Sent(
        endpoint=endpoint,
        at=now,
        memory=sent.memory,
        size=request.prompt_bytes - matched,
        prompt_bytes=sent.prompt_bytes,
        matched_bytes=matched,
        adapter=sent.adapter,
        model=sent.model,
        is_streamed=sent.is_streamed,
        counts=sent.counts,
        queued=sent.queued,
    )
