"""The way of a request to the endpoint that its picker chose."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from controller.extproc.messages import Changes, HeadersAnswer, Metadata
from controller.relay.asked import Exchange, Head
from controller.relay.changes import changed, destinations, length_of, target_of, value_of, within
from controller.relay.errors import EndpointFailed, Fault, PickerFailed
from controller.relay.http1 import Fields
from controller.relay.outlet import Outlet
from controller.relay.places import place_of
from controller.relay.pools import PoolTable, RelayPool
from controller.relay.relayed import Relayed
from controller.relay.watching import Patience

log = logging.getLogger(__name__)

_GRACE: Final = 1.0
"""Seconds for which a named endpoint may be missing from the pool: pickers hear of new pods a little earlier."""
_WHOLE: Final = 0.1
"""Seconds for the picker to give back a whole body; one that takes longer is sent on as it comes."""
_REPLACED: Final = frozenset({b"host", b"content-length", b"expect"})
"""Headers of a request that the relay writes itself."""


async def chosen(answer: HeadersAnswer, metadata: Metadata, *, pool: RelayPool, table: PoolTable) -> list[str]:
    """Endpoints of the pool that the picker names, the first preferred. Waits a moment for one that is not known.

    One that has just left the pool is good enough where there is no other.

    Raises PickerFailed when it names none.
    """
    named = destinations(answer.changes, metadata)
    if not named:
        raise PickerFailed("the picker named no endpoint", fault=Fault.NO_ENDPOINT)
    deadline = asyncio.get_running_loop().time() + _GRACE
    while True:
        current = table.pools.get(pool.name, pool)
        if addresses := within(named, current.endpoints) or within(named, table.leaving(pool.name)):
            return addresses
        try:
            async with asyncio.timeout_at(deadline):
                await table.changed.wait()
        except TimeoutError:
            message = f"the picker named no endpoint of the pool: {', '.join(named)[:200]}"
            raise PickerFailed(message, fault=Fault.OUTSIDE_POOL) from None


async def ask(
    relayed: Relayed, addresses: Sequence[str], *, answer: HeadersAnswer, body: Outlet, speaks_http2: bool
) -> tuple[str, Exchange]:
    """Send the request to the first endpoint that answers: its address, and what it answers.

    Raises EndpointFailed when none does, and PickerFailed when the picker does not give the body back.
    """
    sent = _Body(body, relayed.services.patience)
    fields = passed(relayed, answer.changes)
    has_body = relayed.request.has_body or body.size > 0
    if has_body:
        # A model server reads all of it before it begins, and rather with its length than in chunks.
        await body.wait_for_end(timeout=_WHOLE)
    failure = EndpointFailed("")
    for address in addresses:
        length = body.size if body.has_ended else length_of(answer.changes)
        sized = [(b"content-length", b"%d" % length)] if has_body and length is not None else []
        head = head_for(
            relayed, address, changes=answer.changes, fields=[*fields, *sized], has_body=has_body, length=length
        )
        sent.length = length
        try:
            served = await relayed.services.endpoints.ask(
                place_of(address, stem=relayed.stem), head, sent, speaks_http2=speaks_http2
            )
        except EndpointFailed as problem:
            failure = problem
            relayed.failed_at(address, problem.outcome)
            log.info("endpoint failed", extra={"pool": relayed.pool, "endpoint": address, "reason": str(problem)})
            continue
        return address, served
    raise failure


def passed(relayed: Relayed, changes: Changes) -> Fields:
    """Headers of the request for an endpoint, as the picker wants them."""
    return changed([item for item in relayed.fields if item[0] not in _REPLACED], changes)


def head_for(
    relayed: Relayed, address: str, *, changes: Changes, fields: Fields, has_body: bool, length: int | None
) -> Head:
    """The beginning of the request for an endpoint."""
    request = relayed.request
    return Head(
        method=request.method,
        target=target_of(changes, request.target),
        authority=value_of(request.fields, b"host") or address.encode(),
        scheme=b"https" if relayed.stem else b"http",
        fields=fields,
        has_body=has_body,
        length=length,
    )


class _Body:
    """A request's body as the picker lets it go on. Read anew for each endpoint that is tried."""

    def __init__(self, outlet: Outlet, patience: Patience) -> None:
        self._outlet = outlet
        self._patience = patience
        self.length: int | None = None
        """Bytes that were announced."""

    def whole(self) -> Sequence[bytes] | None:
        """All of it, where it is there and in memory. Raises PickerFailed when it is not what was announced."""
        pieces = self._outlet.whole()
        if pieces is not None and self.length is not None and self._outlet.size != self.length:
            raise self._differs(self._outlet.size)
        return pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises PickerFailed when the rest does not come, or is not what was announced."""
        number, size = 0, 0
        while True:
            try:
                async with asyncio.timeout(self._patience.answer):
                    piece = await self._outlet.piece(number)
            except TimeoutError:
                raise PickerFailed("the picker is late with a body", fault=Fault.LATE) from None
            number, size = number + 1, size + len(piece)
            if self.length is not None and (size > self.length or (not piece and size < self.length)):
                raise self._differs(size)
            if not piece:
                return
            yield piece

    def _differs(self, size: int) -> PickerFailed:
        return PickerFailed(f"the picker announces a body of {self.length:,} bytes, and gives {size:,}")
