"""A request that is relayed, with what the parts of its exchange share."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final

from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import EXPLANATION_KEY, MODEL_KEY, OWN_NAMESPACE, TARGET_KEY, USAGE_KEY, Metadata
from controller.headers import (
    CONNECTION_HEADER,
    DIALED_HEADER,
    ENDPOINT_HEADER,
    EXPLAIN_HEADER,
    MODEL_HEADER,
    PICK_HEADER,
    POOL_HEADER,
    TARGET_HEADER,
    TRIED_HEADER,
    TryOutcome,
)
from controller.relay.changes import ordinary, value_of, without_named
from controller.relay.endpoints import Endpoints
from controller.relay.errors import RelayError
from controller.relay.pickers import Pickers
from controller.relay.pieces import Budget
from controller.relay.pools import PoolTable, RelayPool
from controller.relay.scope import Tried, told_of
from controller.relay.server import Reply, Request
from controller.relay.tallies import Tallies, Tally
from controller.relay.watching import Patience

log = logging.getLogger(__name__)

_POOL: Final = POOL_HEADER.encode()
_DIALED: Final = DIALED_HEADER.encode()
_CONNECTION: Final = CONNECTION_HEADER.encode()
_ENDPOINT: Final = ENDPOINT_HEADER.encode()
_TRIED: Final = TRIED_HEADER.encode()
_MODEL: Final = MODEL_HEADER.encode()
_TARGET: Final = TARGET_HEADER.encode()
_EXPLAIN: Final = EXPLAIN_HEADER.encode()
_PICK: Final = PICK_HEADER.encode()
_LONGEST_MODEL: Final = 256
"""Characters that the access log shows."""
_LONGEST_EXPLANATION: Final = 6000
"""Characters: what Infergate's picker gives at most."""


@dataclass(frozen=True)
class Services:
    """What exchanges share."""

    table: PoolTable
    pickers: Pickers
    endpoints: Endpoints
    patience: Patience
    budget: Budget = field(default_factory=Budget)
    tallies: Tallies = field(default_factory=Tallies)


@dataclass(slots=True)
class Relayed:
    """A request from NGINX, and where its answer goes."""

    request: Request
    reply: Reply
    services: Services
    pool: str
    """The name that NGINX says; there may be no such pool."""
    stem: str
    """Of the sockets of the dialer; empty where endpoints are reached without it."""
    fields: list[tuple[bytes, bytes]]
    """Headers of the request that may pass on."""
    tally: Tally
    model: bytes = b""
    """That the picker says the request names."""
    target: bytes = b""
    """The model that the picker says the request is given."""
    explanation: bytes = b""
    """That the picker gives the client."""
    reads_usage: bool = False
    """Whether the tokens of the answer are read."""
    is_infergates: bool = False
    """Whether the picker said something that only Infergate's own says."""
    _pick: bytes = b""
    """Seconds until the picker chose first; empty until then."""
    tried: list[Tried] = field(default_factory=list)
    """Oldest first."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do something beside the rest, until it is done or the exchange is over."""
        task = asyncio.create_task(work)
        task.add_done_callback(_look_at)
        self._tasks.append(task)
        return task

    def take_note(self, metadata: Metadata, *, pool: RelayPool) -> None:
        """Keep what the picker says for the access log and the client, and what the pool says where it does not."""
        told = metadata.get(OWN_NAMESPACE)
        if not told:
            self.reads_usage = pool.reads_usage
            return
        self.is_infergates = True
        usage = told.get(USAGE_KEY)
        self.reads_usage = usage if isinstance(usage, bool) else pool.reads_usage
        why = told.get(EXPLANATION_KEY)
        if isinstance(why, str) and len(why) <= _LONGEST_EXPLANATION and why.isascii() and why.isprintable():
            self.explanation = why.encode()
        self.model, self.target = _name(told.get(MODEL_KEY)), _name(told.get(TARGET_KEY))

    def chosen_within(self, seconds: float) -> None:
        """The picker chose, so many seconds after it was asked."""
        self.tally.choices.observe(seconds)
        if self._pick:
            return  # the log has the first one, as beside NGINX
        # In whole milliseconds that have passed, as NGINX counts: more than it took to answer is never told.
        self._pick = b"%.3f" % (int(seconds * 1000) / 1000)

    def failed_at(self, address: str, outcome: TryOutcome) -> None:
        """An endpoint was asked in vain."""
        self.tally.tries_failed += 1
        self.tried.append(Tried(address, outcome))

    def notes(self, address: str = "") -> list[tuple[bytes, bytes]]:
        """Headers of the answer for NGINX: the endpoint that serves, if any, those that failed, the models, the time
        that the choice took, and why."""
        told = (
            (_ENDPOINT, address.encode()),
            (_TRIED, told_of(self.tried).encode()),
            (_MODEL, self.model),
            (_TARGET, self.target),
            (_PICK, self._pick),
            (_EXPLAIN, self.explanation),
        )
        return [item for item in told if item[1]]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def as_relayed(request: Request, reply: Reply, services: Services) -> Relayed:
    """A request with what its headers say to the relay."""
    fields = ordinary(request.fields)
    named = value_of(request.fields, _CONNECTION)
    if named is not None:
        fields = without_named(fields, named)
    name = (value_of(request.fields, _POOL) or b"").decode("latin-1")
    return Relayed(
        request,
        reply,
        services,
        pool=name,
        stem=(value_of(request.fields, _DIALED) or b"").decode("latin-1"),
        fields=fields,
        tally=services.tallies.of(name if name in services.table.pools else ""),
    )


def _name(told: object) -> bytes:
    """A name that a header cannot hold is no model's."""
    is_one = isinstance(told, str) and len(told) <= _LONGEST_MODEL and told.isprintable()
    return str(told).encode() if is_one else b""


def _look_at(task: asyncio.Task[None]) -> None:
    """What ends an exchange was told to whoever waits; anything else is a mistake of ours."""
    if not task.cancelled() and (problem := task.exception()) and not isinstance(problem, RelayError | StreamEnded):
        log.error("exchange failed", exc_info=problem)
