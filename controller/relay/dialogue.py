"""What the relay and a picker say to each other about one exchange.

Both directions of the exchange pass through the picker in the same way: headers and pieces of the body are sent, and
what the picker makes of them comes back, in any order.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from controller.extproc.messages import (
    Answer,
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    MessageUnreadable,
    Metadata,
    Phase,
    chunks_of,
    decode_answer,
    encode_part,
)
from controller.relay.errors import Fault, PickerFailed, RelayError, StreamEnded
from controller.relay.grpc import Call
from controller.relay.outlet import Outlet
from controller.relay.pieces import Budget
from controller.relay.reflection import Reflection

MOST_CHANGES: Final = 500
"""Changes of headers in one answer."""
MOST_HEADER_BYTES: Final = 32 * 1024
"""Of such changes: what NGINX and model servers take."""

_HALF: Final = PickerFailed("the stream ended within a body", fault=Fault.ENDED)


class Direction:
    """The request, or the response."""

    def __init__(self, budget: Budget) -> None:
        self.head: asyncio.Future[HeadersAnswer | None] = asyncio.get_running_loop().create_future()
        """What becomes of the headers; None where the picker is gone and they stay as they are."""
        self.metadata: Metadata = {}
        """That came with it."""
        self.body = Outlet(budget)
        """What becomes of the body."""
        self._reflection = Reflection(budget)
        self.is_released = False
        """Whether the rest goes on without the picker."""

    @property
    def is_half(self) -> bool:
        """Whether a part of the body is the picker's, and more of it is to come."""
        return self._reflection.is_changed and not self.body.has_ended

    def sent(self, piece: bytes, *, end: bool) -> None:
        if self.body.has_ended:  # the picker wants no more of it
            return
        self._reflection.sent(piece, end=end)

    def took(self, answer: HeadersAnswer | BodyAnswer, metadata: Metadata) -> None:
        if self.is_released:
            return
        if isinstance(answer, HeadersAnswer):
            self._took_head(answer, metadata)
        elif answer.is_streamed:
            self.body.add(self._reflection.streamed(answer.chunk or b"", end=answer.end_of_stream))
        else:
            self.body.add(self._reflection.answered(answer.chunk))
        if self._reflection.has_ended:
            self.body.end()

    def flush(self) -> None:
        """Let go on what did not come back, after the picker was released."""
        if self.body.has_ended:
            return
        for piece in self._reflection.rest():
            self.body.add(piece)
        if self._reflection.has_sent_end:
            self.body.end()

    def release(self) -> None:
        """The picker has no more to say: what did not come back goes on as it is."""
        if self.is_released:
            return
        self.is_released = True
        self.flush()
        if not self.head.done():
            self.head.set_result(None)

    def fail(self, problem: RelayError) -> None:
        if not self.head.done():
            self.head.set_exception(problem)
            self.head.exception()  # nobody may be waiting
        self.body.fail(problem)

    def clear(self) -> None:
        self._reflection.clear()
        self.body.clear()

    def _took_head(self, answer: HeadersAnswer, metadata: Metadata) -> None:
        if self.head.done():
            return
        if answer.body is not None:
            self.is_released = True
            self.body.add(answer.body)
            self.body.end()
        self.metadata = metadata
        self.head.set_result(answer)


class Dialogue:
    """One stream of ext_proc."""

    def __init__(self, call: Call, *, budget: Budget, interrupt: Callable[[Immediate], None]) -> None:
        """`interrupt` hears of an answer that takes the place of everything else."""
        self._call = call
        self._interrupt = interrupt
        self._is_first = True
        self._is_over = False
        self.problem: PickerFailed | None = None
        """Why it ended early."""
        self.request = Direction(budget)
        self.response = Direction(budget)
        self._listening = asyncio.create_task(self._listen())

    @property
    def is_over(self) -> bool:
        """Whether the picker has no more to say."""
        return self._is_over

    async def send_head(self, part: HeadersPart, *, metadata: Metadata | None = None) -> None:
        """Raises PickerFailed."""
        await self._send(encode_part(part, metadata=metadata, opens=self._is_first))
        self._is_first = False

    async def send_body(self, phase: Phase, data: bytes, *, end: bool) -> None:
        """Waits until the picker takes it. Raises PickerFailed."""
        direction = self.request if phase is Phase.REQUEST else self.response
        pieces = list(chunks_of(data))
        for number, piece in enumerate(pieces):
            is_last = end and number == len(pieces) - 1
            direction.sent(piece, end=is_last)
            if direction.is_released:
                direction.flush()
            else:
                await self._send(encode_part(BodyPart(phase, piece, end_of_stream=is_last)))

    async def finish(self, *, patience: float) -> None:
        """Say that nothing follows, and wait a moment for the picker to say the same."""
        try:
            async with asyncio.timeout(patience):
                if not self._is_over:
                    await self._call.done()
                await asyncio.wait({self._listening})
        except (TimeoutError, StreamEnded):
            pass

    def give_up(self, problem: PickerFailed) -> None:
        """End it because of the picker."""
        self._listening.cancel()
        self._call.cancel()
        self._ended(problem)

    def cancel(self) -> None:
        """Give it up, unless it has ended."""
        self._listening.cancel()
        self._call.cancel()
        self.request.clear()
        self.response.clear()

    async def _send(self, message: bytes) -> None:
        try:
            await self._call.send(message)
        except StreamEnded as problem:
            # What the picker said last is worth more than that it takes no more.
            await asyncio.wait({self._listening}, timeout=1.0)
            if self.problem is not None or not self._is_over:
                raise self.problem or PickerFailed(str(problem), fault=Fault.ENDED) from problem

    async def _listen(self) -> None:
        try:
            while (message := await self._call.receive()) is not None:
                answer, metadata = decode_answer(message)
                if isinstance(answer, Immediate):
                    # Nothing else counts from here on.
                    self._is_over = True
                    self._interrupt(answer)
                    return
                if answer is not None:
                    self._took(answer, metadata)
        except (StreamEnded, MessageUnreadable, PickerFailed) as problem:
            self._ended(_failed(problem))
            self._call.cancel()
            return
        except OSError as problem:
            self._ended(PickerFailed(f"no room for a body: {problem}", fault=Fault.NO_ROOM))
            self._call.cancel()
            return
        self._ended(None)

    def _took(self, answer: Answer, metadata: Metadata) -> None:
        _check(answer)
        if isinstance(answer, HeadersAnswer | BodyAnswer):
            direction = self.request if answer.phase is Phase.REQUEST else self.response
            direction.took(answer, metadata)

    def _ended(self, problem: PickerFailed | None) -> None:
        """The picker says no more. That ends a request that it did not answer, and leaves an answer as it is."""
        self._is_over = True
        if problem is None and not self.request.head.done():
            problem = PickerFailed("the stream ended without an answer", fault=Fault.ENDED)
        self.problem = problem
        if problem is not None or self.request.is_half:
            self.request.fail(problem or _HALF)
        else:
            self.request.release()
        if self.response.is_half:
            self.response.fail(problem or _HALF)
        else:
            self.response.release()


def _failed(problem: StreamEnded | MessageUnreadable | PickerFailed) -> PickerFailed:
    if isinstance(problem, PickerFailed):
        return problem
    return PickerFailed(str(problem), fault=Fault.ENDED if isinstance(problem, StreamEnded) else Fault.UNREADABLE)


def _check(answer: Answer) -> None:
    """Raises PickerFailed when there is more to do than is done for anybody."""
    changes = getattr(answer, "changes", None)
    if changes is None:
        return
    size = sum(len(item.name) + len(item.value) for item in changes.set)
    if len(changes.set) + len(changes.remove) > MOST_CHANGES or size > MOST_HEADER_BYTES:
        raise PickerFailed(f"an answer changes {len(changes.set) + len(changes.remove):,} headers, of {size:,} bytes")
