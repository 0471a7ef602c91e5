"""One exchange: a request from NGINX, its picker, the endpoint that it chose, and the answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from controller.bundle import DIALED_HEADER, ENDPOINT_HEADER, POOL_HEADER, THEN_HEADER
from controller.extproc.messages import (
    ENDPOINT_NAMESPACE,
    SERVED_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    Metadata,
    Phase,
    endpoints_of,
)
from controller.relay.changes import changed, destinations, is_ordinary, length_of, target_of, value_of, within
from controller.relay.dialogue import Dialogue, Direction
from controller.relay.endpoints import Endpoints, Head, place_of
from controller.relay.endpoints import Exchange as Served
from controller.relay.errors import AnswerBroken, EndpointFailed, Fault, PickerFailed, RelayError
from controller.relay.http1 import Fields
from controller.relay.pickers import Patience, Pickers
from controller.relay.pieces import Budget
from controller.relay.pools import PoolTable, RelayPool
from controller.relay.refusals import refusal
from controller.relay.server import Reply, Request
from controller.relay.tallies import Outcome, Tallies

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
    goodbyes: set[asyncio.Task[None]] = field(default_factory=set)


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
        self._immediate: asyncio.Future[Immediate] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        pool = self._services.table.pools.get(self._name)
        try:
            if pool is None:
                raise PickerFailed(f"there is no pool {self._name} with an external picker")
            passing = self._start(self._pass(pool))
            first: set[asyncio.Future[Any]] = {passing, self._immediate}  # any: of two kinds
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if self._immediate.done():
                passing.cancel()
                await asyncio.wait({passing})
                if not passing.cancelled():
                    passing.exception()
                await self._refuse(self._immediate.result())
            else:
                passing.result()
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
        if self._served is not None:
            self._served.close()
        if self._dialogue is not None:
            self._dialogue.cancel()

    # The way of a request.

    async def _pass(self, pool: RelayPool) -> None:
        begun = asyncio.get_running_loop().time()
        call = await self._services.pickers.call(pool.places)
        dialogue = Dialogue(call, budget=self._services.budget, interrupt=self._interrupt)
        self._dialogue = dialogue
        self._start(self._send_request(dialogue))
        answer = await self._owed(dialogue.request.head, what="a choice")
        assert answer is not None  # a picker that ends before it chose has failed
        self.tally.choices.observe(asyncio.get_running_loop().time() - begun)
        addresses = await self._chosen(answer, dialogue.request.metadata, pool)
        address = await self._ask(addresses, answer, dialogue.request, speaks_http2=pool.speaks_http2)
        await self._answer(dialogue, address)
        self.tally.outcomes[Outcome.SERVED] += 1
        self._note_fault()
        self._dialogue = None
        goodbye = asyncio.create_task(_say_goodbye(dialogue))
        self._services.goodbyes.add(goodbye)
        goodbye.add_done_callback(self._services.goodbyes.discard)

    async def _send_request(self, dialogue: Dialogue) -> None:
        request = self._request
        head = HeadersPart(Phase.REQUEST, self._head_for_picker(), end_of_stream=not request.has_body)
        try:
            await dialogue.send_head(head, metadata=self._subset())
            if not request.has_body:
                return
            data = await request.read()
            while data:
                # The end is told with the last piece, where it is known by then.
                is_last = request.has_ended
                await dialogue.send_body(Phase.REQUEST, data, end=is_last)
                if is_last:
                    return
                data = await request.read()
            await dialogue.send_body(Phase.REQUEST, b"", end=True)
        except PickerFailed as problem:
            dialogue.request.fail(problem)
        except OSError as problem:
            dialogue.request.fail(PickerFailed(f"no room for a body: {problem}", fault=Fault.NO_ROOM))

    def _head_for_picker(self) -> tuple[tuple[str, bytes], ...]:
        request = self._request
        pseudo = (
            (":method", request.method),
            (":scheme", value_of(request.fields, b"x-forwarded-proto") or b"http"),
            (":authority", value_of(request.fields, b"host") or b""),
            (":path", request.target),
        )
        return (*pseudo, *((name.decode("latin-1"), value) for name, value in self._fields if name != b"host"))

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

    # The way of its answer.

    async def _answer(self, dialogue: Dialogue, address: str) -> None:
        served = self._served
        assert served is not None
        fields = [item for item in served.fields if is_ordinary(item[0])]
        length = _length(fields)
        is_empty = self._request.method == b"HEAD" or served.status in (204, 304) or length == 0
        if not dialogue.is_over:
            metadata = {ENDPOINT_NAMESPACE: {SERVED_KEY: address}}
            head = tuple((name.decode("latin-1"), value) for name, value in fields)
            part = HeadersPart(Phase.RESPONSE, ((":status", b"%d" % served.status), *head), end_of_stream=is_empty)
            self._start(self._send_answer(dialogue, served, part, metadata))
        else:
            self._start(self._read_answer(dialogue, served, is_empty=is_empty))
        try:
            answer = await self._owed(dialogue.response.head, what="an answer to the response's headers")
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

    async def _send_answer(self, dialogue: Dialogue, served: Served, head: HeadersPart, metadata: Metadata) -> None:
        with suppress(PickerFailed):  # then it is released, and what follows goes on as it is
            await dialogue.send_head(head, metadata=metadata)
        await self._read_answer(dialogue, served, is_empty=head.end_of_stream)

    async def _read_answer(self, dialogue: Dialogue, served: Served, *, is_empty: bool) -> None:
        outlet = dialogue.response.body
        try:
            while not is_empty and (data := await served.read()):
                await self._pass_on(dialogue, data, end=False)
                await outlet.wait_until_below(_BACKLOG)
            if is_empty:
                outlet.end()
            else:
                await self._pass_on(dialogue, b"", end=True)
                await self._wait_for_rest(dialogue)
        except EndpointFailed as problem:
            outlet.fail(problem)
        except OSError as problem:
            outlet.fail(EndpointFailed(f"no room for a body: {problem}"))

    async def _pass_on(self, dialogue: Dialogue, data: bytes, *, end: bool) -> None:
        try:
            await dialogue.send_body(Phase.RESPONSE, data, end=end)
        except PickerFailed:
            dialogue.response.flush()

    async def _wait_for_rest(self, dialogue: Dialogue) -> None:
        """A picker that has all of the answer, and gives nothing back, is not waited for without end."""
        outlet = dialogue.response.body
        size = -1
        while not outlet.has_ended and size != outlet.size:
            size = outlet.size
            await asyncio.sleep(self._services.patience.answer)
        if not outlet.has_ended:
            dialogue.give_up(PickerFailed("the picker does not give back the rest of an answer", fault=Fault.LATE))

    # Ends that are not served.

    def _interrupt(self, immediate: Immediate) -> None:
        if not self._immediate.done():
            self._immediate.set_result(immediate)

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

    async def _owed(self, head: "asyncio.Future[HeadersAnswer | None]", *, what: str) -> HeadersAnswer | None:
        """What the picker owes. Raises PickerFailed when it is late."""
        try:
            return await asyncio.wait_for(asyncio.shield(head), self._services.patience.answer)
        except TimeoutError:
            raise PickerFailed(f"the picker is late with {what}", fault=Fault.LATE) from None

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
                raise PickerFailed(f"the picker announces a body of {self.length:,} bytes, and gives {size:,}")
            if not piece:
                return
            yield piece


def _length(fields: Fields) -> int | None:
    value = value_of(fields, b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def _look_at(task: asyncio.Task[None]) -> None:
    """What ends an exchange was told to whoever waits; anything else is a mistake of ours."""
    if not task.cancelled() and (problem := task.exception()) and not isinstance(problem, RelayError):
        log.error("exchange failed", exc_info=problem)


async def _say_goodbye(dialogue: Dialogue) -> None:
    try:
        await dialogue.finish(patience=_GOODBYE)
    finally:
        dialogue.cancel()
