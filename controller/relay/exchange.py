"""One exchange: a request from NGINX, its picker, the endpoint that it chose, and the answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from controller.bundle import DIALED_HEADER, ENDPOINT_HEADER, POOL_HEADER, THEN_HEADER
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import (
    ENDPOINT_NAMESPACE,
    SERVED_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
    HeadersAnswer,
    Immediate,
    Metadata,
    Phase,
    endpoints_of,
)
from controller.relay import tunnel
from controller.relay.asked import Exchange as Served
from controller.relay.asked import Head
from controller.relay.changes import changed, destinations, is_ordinary, length_of, target_of, value_of, within
from controller.relay.dialogue import Dialogue, Direction
from controller.relay.endpoints import Endpoints
from controller.relay.errors import AnswerBroken, EndpointFailed, Fault, PickerFailed, RelayError
from controller.relay.http1 import Fields
from controller.relay.pickers import Patience, Pickers
from controller.relay.pieces import Budget
from controller.relay.places import place_of
from controller.relay.pools import PoolTable, RelayPool
from controller.relay.refusals import refusal
from controller.relay.server import Reply, Request
from controller.relay.tallies import Outcome, Tallies
from controller.relay.tunnel import Tunnel

log = logging.getLogger(__name__)

_BACKLOG: Final = 512 * 1024
"""Bytes of an answer that wait for the client, at which no more are taken from the endpoint."""
_GRACE: Final = 1.0
"""Seconds for which a named endpoint may be missing from the pool: pickers hear of new pods a little earlier."""
_WHOLE: Final = 0.1
"""Seconds for the picker to give back a whole body; one that takes longer is sent on as it comes."""
_GOODBYE: Final = 5.0
"""Seconds for the picker to end a stream on which all was said."""
_POOL: Final = POOL_HEADER.encode()
_DIALED: Final = DIALED_HEADER.encode()
_THEN: Final = THEN_HEADER.encode()
_SUBSET: Final = SUBSET_KEY.encode()


@dataclass(frozen=True)
class Services:
    """What exchanges share."""

    table: PoolTable
    pickers: Pickers
    endpoints: Endpoints
    patience: Patience
    budget: Budget = field(default_factory=Budget)
    tallies: Tallies = field(default_factory=Tallies)


async def serve(request: Request, reply: Reply, services: Services) -> None:
    """Answer a request that NGINX sends for a pool."""
    exchange = _Exchange(request, reply, services)
    exchange.tally.under_way += 1
    try:
        await exchange.run()
    except asyncio.CancelledError:
        exchange.tally.outcomes[Outcome.GIVEN_UP] += 1
        raise
    finally:
        exchange.tally.under_way -= 1
        exchange.close()


class _Exchange:
    def __init__(self, request: Request, reply: Reply, services: Services) -> None:
        self._request = request
        self._reply = reply
        self._services = services
        self._fields = [item for item in request.fields if is_ordinary(item[0])]
        self._name = (value_of(request.fields, _POOL) or b"").decode("latin-1")
        self.tally = services.tallies.of(self._name if self._name in services.table.pools else "")
        self._dialogue: Dialogue | None = None
        self._served: Served | None = None
        self._task = asyncio.current_task()
        self._immediate: Immediate | None = None
        """The picker's own answer, which cancels everything else."""
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        pool = self._services.table.pools.get(self._name)
        try:
            if pool is None:
                raise PickerFailed(f"there is no pool {self._name} with an external picker")
            await self._pass_or_refuse(pool)
        except PickerFailed as problem:
            await self._without_picker(problem)
        except EndpointFailed as problem:
            self._note_fault()
            await self._without_endpoint(problem)
        except AnswerBroken as problem:
            self._note_fault()
            self._cut(str(problem))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._served is not None:
            self._served.close()
        if self._dialogue is not None:
            self._dialogue.cancel()
        # Nothing of it waits for the collector of garbage.
        self._dialogue = self._task = None

    # The way of a request.

    async def _pass_or_refuse(self, pool: RelayPool) -> None:
        assert self._task is not None  # it runs in one
        cancelling = self._task.cancelling()
        try:
            await self._pass(pool)
        except asyncio.CancelledError:
            if self._immediate is None or self._task.uncancel() > cancelling:
                raise
            await self._refuse(self._immediate)

    async def _pass(self, pool: RelayPool) -> None:
        begun = asyncio.get_running_loop().time()
        dialogue = Dialogue(budget=self._services.budget, interrupt=self._interrupt)
        dialogue.begin(await self._services.pickers.call(pool.places, dialogue))
        self._dialogue = dialogue
        self._send_request(dialogue)
        answer = await dialogue.request.head(patience=self._services.patience.answer, what="a choice")
        assert answer is not None  # a picker that ends before it chose has failed
        self.tally.choices.observe(asyncio.get_running_loop().time() - begun)
        addresses = await self._chosen(answer, dialogue.request.metadata, pool)
        if self._request.upgrade and not pool.speaks_http2:
            await self._switch(dialogue, addresses, answer)
        else:
            address = await self._ask(addresses, answer, dialogue.request, speaks_http2=pool.speaks_http2)
            await self._answer(dialogue, address)
        self.tally.outcomes[Outcome.SERVED] += 1
        self._note_fault()
        self._dialogue = None
        dialogue.finish(patience=_GOODBYE)

    def _send_request(self, dialogue: Dialogue) -> None:
        """Send what came of the request. A task sends the rest, where there is one."""
        request = self._request
        dialogue.send_head(Phase.REQUEST, self._head_for_picker(), end=not request.has_body, metadata=self._subset())
        if not request.has_body:
            return
        if data := request.take():
            # The end is told with the last piece, where it is known by then.
            is_last = request.has_ended
            self._send_piece(dialogue, data, end=is_last)
            if is_last:
                return
        self._start(self._send_rest(dialogue))

    async def _send_rest(self, dialogue: Dialogue) -> None:
        request = self._request
        try:
            await dialogue.drained()
            while data := await request.read():
                is_last = request.has_ended
                self._send_piece(dialogue, data, end=is_last)
                if is_last:
                    return
                await dialogue.drained()
            self._send_piece(dialogue, b"", end=True)
        except PickerFailed as problem:
            dialogue.request.fail(problem)

    def _send_piece(self, dialogue: Dialogue, data: bytes, *, end: bool) -> None:
        try:
            dialogue.send_body(Phase.REQUEST, data, end=end)
        except PickerFailed as problem:
            dialogue.request.fail(problem)
        except OSError as problem:
            dialogue.request.fail(PickerFailed(f"no room for a body: {problem}", fault=Fault.NO_ROOM))

    def _head_for_picker(self) -> Fields:
        request = self._request
        return [
            (b":method", request.method),
            (b":scheme", value_of(request.fields, b"x-forwarded-proto") or b"http"),
            (b":authority", value_of(request.fields, b"host") or b""),
            (b":path", request.target),
            *(item for item in self._fields if item[0] != b"host"),
        ]

    def _subset(self) -> Metadata | None:
        """Endpoints that NGINX restricts the choice to. A client cannot say this: NGINX removes its header."""
        value = value_of(self._request.fields, _SUBSET)
        if not value:
            return None
        return {SUBSET_NAMESPACE: {SUBSET_KEY: list(endpoints_of(value.decode("latin-1")))}}

    async def _chosen(self, answer: HeadersAnswer, metadata: Metadata, pool: RelayPool) -> list[str]:
        named = destinations(answer.changes, metadata)
        if not named:
            raise PickerFailed("the picker named no endpoint", fault=Fault.NO_ENDPOINT)
        table, deadline = self._services.table, asyncio.get_running_loop().time() + _GRACE
        while True:
            current = table.pools.get(pool.name, pool)
            if addresses := within(named, current.endpoints):
                return addresses
            try:
                async with asyncio.timeout_at(deadline):
                    await table.changed.wait()
            except TimeoutError:
                message = f"the picker named no endpoint of the pool: {', '.join(named)[:200]}"
                raise PickerFailed(message, fault=Fault.OUTSIDE_POOL) from None

    async def _ask(
        self, addresses: list[str], answer: HeadersAnswer, direction: Direction, *, speaks_http2: bool
    ) -> str:
        """Send the request to the first endpoint that answers. Returns its address."""
        request = self._request
        body = _Body(direction, self._services.patience)
        fields = changed([item for item in self._fields if item[0] not in _REPLACED], answer.changes)
        has_body = request.has_body or direction.body.size > 0
        if has_body:
            # A model server reads all of it before it begins, and rather with its length than in chunks.
            await direction.body.wait_for_end(timeout=_WHOLE)
        failure = EndpointFailed("")
        stem = (value_of(request.fields, _DIALED) or b"").decode("latin-1")
        for address in addresses:
            length = direction.body.size if direction.body.has_ended else length_of(answer.changes)
            sized = [(b"content-length", b"%d" % length)] if has_body and length is not None else []
            head = Head(
                method=request.method,
                target=target_of(answer.changes, request.target),
                authority=value_of(request.fields, b"host") or address.encode(),
                scheme=b"https" if stem else b"http",
                fields=[*fields, *sized],
                has_body=has_body,
                length=length,
            )
            body.length = length
            try:
                self._served = await self._services.endpoints.ask(
                    place_of(address, stem=stem), head, body, speaks_http2=speaks_http2
                )
            except EndpointFailed as problem:
                failure = problem
                self.tally.tries_failed += 1
                log.info("endpoint failed", extra={"pool": self._name, "endpoint": address, "reason": str(problem)})
                continue
            return address
        raise failure

    async def _switch(self, dialogue: Dialogue, addresses: list[str], answer: HeadersAnswer) -> None:
        """Join the client with the first endpoint that answers, where that agrees to the other protocol."""
        request = self._request
        fields = changed([item for item in self._fields if item[0] not in _REPLACED], answer.changes)
        failure = EndpointFailed("")
        stem = (value_of(request.fields, _DIALED) or b"").decode("latin-1")
        for address in addresses:
            head = Head(
                method=request.method,
                target=target_of(answer.changes, request.target),
                authority=value_of(request.fields, b"host") or address.encode(),
                scheme=b"https" if stem else b"http",
                fields=fields,
                has_body=False,
                length=None,
            )
            try:
                connection = await tunnel.ask(place_of(address, stem=stem), head, request.upgrade)
            except EndpointFailed as problem:
                failure = problem
                self.tally.tries_failed += 1
                continue
            self._served = connection
            if connection.status != tunnel.SWITCHED:
                await self._answer(dialogue, address)
            else:
                await self._join(dialogue, connection, address)
            return
        raise failure

    async def _join(self, dialogue: Dialogue, connection: Tunnel, address: str) -> None:
        fields = [item for item in connection.fields if is_ordinary(item[0])]
        metadata = {ENDPOINT_NAMESPACE: {SERVED_KEY: address}}
        try:
            if not dialogue.is_over:
                head = [(b":status", b"101"), *fields]
                dialogue.send_head(Phase.RESPONSE, head, end=False, metadata=metadata)
            answer = await dialogue.response.head(
                patience=self._services.patience.answer, what="an answer to the response's headers"
            )
        except PickerFailed as problem:
            dialogue.give_up(problem)
            answer = None
        if answer is not None:
            fields = changed(fields, answer.changes)
        agreed = next((value for name, value in connection.fields if name == b"upgrade"), self._request.upgrade)
        shown = (ENDPOINT_HEADER.encode(), address.encode())
        await self._reply.begin(tunnel.SWITCHED, [*fields, *tunnel.upgrading(agreed), shown])
        await tunnel.join(self._request, self._reply, connection)
        with suppress(PickerFailed):
            dialogue.send_body(Phase.RESPONSE, b"", end=True)
        await self._reply.end()

    # The way of its answer.

    async def _answer(self, dialogue: Dialogue, address: str) -> None:
        served = self._served
        assert served is not None
        fields = [item for item in served.fields if is_ordinary(item[0])]
        length = _length(fields)
        is_empty = self._request.method == b"HEAD" or served.status in (204, 304) or length == 0
        if not dialogue.is_over:
            metadata = {ENDPOINT_NAMESPACE: {SERVED_KEY: address}}
            head = [(b":status", b"%d" % served.status), *fields]
            with suppress(PickerFailed):  # then it is released, and what follows goes on as it is
                dialogue.send_head(Phase.RESPONSE, head, end=is_empty, metadata=metadata)
        self._read_answer(dialogue, served, is_empty=is_empty)
        try:
            answer = await dialogue.response.head(
                patience=self._services.patience.answer, what="an answer to the response's headers"
            )
        except PickerFailed as problem:
            if dialogue.response.is_half:
                # The endpoint has done its work: to ask another one would do it twice.
                raise EndpointFailed(str(problem)) from problem
            log.warning("answer goes on without its picker", extra={"pool": self._name, "reason": str(problem)})
            dialogue.give_up(problem)
            answer = None
        if answer is not None:
            fields = changed(fields, answer.changes)
        if answer is not None or not is_empty:
            fields = [item for item in fields if item[0] != b"content-length"]
        unchanged = answer is None and not dialogue.response.is_half
        await self._reply.begin(
            served.status,
            [*fields, (ENDPOINT_HEADER.encode(), address.encode())],
            length=length if unchanged or is_empty else None,
        )
        if not is_empty or dialogue.response.body.size:
            await self._send_body(dialogue)
        await self._reply.end()

    async def _send_body(self, dialogue: Dialogue) -> None:
        outlet = dialogue.response.body
        try:
            while piece := await outlet.take():
                await self._reply.write(piece)
        except (PickerFailed, EndpointFailed) as problem:
            raise AnswerBroken(str(problem)) from problem

    def _read_answer(self, dialogue: Dialogue, served: Served, *, is_empty: bool) -> None:
        """Pass on what came of the answer. A task passes the rest on, where there is one."""
        outlet = dialogue.response.body
        if is_empty:
            outlet.end()
            return
        data, has_ended = served.take()
        if data or has_ended:
            self._pass_on(dialogue, data, end=has_ended)
        if not has_ended:
            self._start(self._read_rest(dialogue, served))

    async def _read_rest(self, dialogue: Dialogue, served: Served) -> None:
        outlet = dialogue.response.body
        try:
            while data := await served.read():
                self._pass_on(dialogue, data, end=False)
                with suppress(PickerFailed):
                    await dialogue.drained()
                await outlet.wait_until_below(_BACKLOG)
            self._pass_on(dialogue, b"", end=True)
        except EndpointFailed as problem:
            outlet.fail(problem)

    def _pass_on(self, dialogue: Dialogue, data: bytes, *, end: bool) -> None:
        try:
            dialogue.send_body(Phase.RESPONSE, data, end=end)
        except PickerFailed:
            dialogue.response.flush()
        except OSError as problem:
            dialogue.response.body.fail(EndpointFailed(f"no room for a body: {problem}"))
        if end:
            self._wait_for_rest(dialogue, -1)

    def _wait_for_rest(self, dialogue: Dialogue, size: int) -> None:
        """A picker that has all of the answer, and gives nothing back, is not waited for without end."""
        outlet = dialogue.response.body
        if outlet.has_ended:
            return
        if size == outlet.size:
            dialogue.give_up(PickerFailed("the picker does not give back the rest of an answer", fault=Fault.LATE))
            return
        loop, patience = asyncio.get_running_loop(), self._services.patience.answer
        self._timer = loop.call_later(patience, self._wait_for_rest, dialogue, outlet.size)

    # Ends that are not served.

    def _interrupt(self, immediate: Immediate) -> None:
        if self._immediate is None and self._task is not None:
            self._immediate = immediate
            self._task.cancel()

    async def _refuse(self, immediate: Immediate) -> None:
        """The picker's own answer is the client's, whatever the failure mode."""
        if self._reply.has_begun:
            self._cut(f"the picker ended it with status {immediate.status}")
            return
        if not 200 <= immediate.status <= 599:
            await self._without_picker(PickerFailed(f"the picker answers with status {immediate.status}"))
            return
        self.tally.outcomes[Outcome.REFUSED] += 1
        fields = changed([(b"content-type", b"text/plain")] if immediate.body else [], immediate.changes)
        await self._reply.whole(immediate.status, fields, immediate.body)

    async def _without_picker(self, problem: PickerFailed) -> None:
        """NGINX has the whole request still, and goes on as the pool's failure mode says."""
        self.tally.faults[problem.fault] += 1
        log.warning("picker failed", extra={"pool": self._name, "reason": str(problem)})
        then = value_of(self._request.fields, _THEN)
        if then is None or self._reply.has_begun:
            self._cut(str(problem))
            return
        self.tally.outcomes[Outcome.PICKER_FAILED] += 1
        await self._reply.whole(200, [(b"x-accel-redirect", then)], b"")

    async def _without_endpoint(self, problem: EndpointFailed) -> None:
        self.tally.outcomes[Outcome.ENDPOINT_FAILED] += 1
        log.warning("no endpoint answered", extra={"pool": self._name, "reason": str(problem)})
        message = "the backend cannot be reached"
        fields, body = refusal(self._request.target, message=message, code="backend_unavailable")
        await self._reply.whole(502, fields, body)

    def _note_fault(self) -> None:
        """A picker that failed once an endpoint was asked."""
        if self._dialogue is not None and self._dialogue.problem is not None:
            self.tally.faults[self._dialogue.problem.fault] += 1

    def _cut(self, reason: str) -> None:
        """End the connection: a part of the answer was sent, and the rest will not come."""
        self.tally.outcomes[Outcome.BROKEN] += 1
        log.warning("answer cut", extra={"pool": self._name, "reason": reason})

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_look_at)
        self._tasks.append(task)
        return task


_REPLACED: Final = frozenset({b"host", b"content-length", b"expect"})
"""Headers of a request that the relay writes itself."""


class _Body:
    """A request's body as the picker lets it go on. Read anew for each endpoint that is tried."""

    def __init__(self, direction: Direction, patience: Patience) -> None:
        self._outlet = direction.body
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


def _length(fields: Fields) -> int | None:
    value = value_of(fields, b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def _look_at(task: asyncio.Task[None]) -> None:
    """What ends an exchange was told to whoever waits; anything else is a mistake of ours."""
    if not task.cancelled() and (problem := task.exception()) and not isinstance(problem, RelayError | StreamEnded):
        log.error("exchange failed", exc_info=problem)
