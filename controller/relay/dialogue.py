"""What the relay and a picker say to each other about one exchange, whose two directions pass through the picker."""

import asyncio
from collections.abc import Callable
from typing import Final

from controller.extproc.decoding import decode_answer
from controller.extproc.encoding import encode_context
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import (
    Answer,
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    MessageUnreadable,
    Metadata,
    Phase,
)
from controller.extproc.wire import CHUNK, encode_body, encode_headers
from controller.relay.direction import Direction
from controller.relay.errors import Fault, PickerFailed
from controller.relay.grpc import Call
from controller.relay.http1 import Fields
from controller.relay.pieces import Budget

MOST_CHANGES: Final = 500
"""Changes of headers in one answer."""
MOST_HEADER_BYTES: Final = 32 * 1024
"""Of such changes: what NGINX and model servers take."""

_MOST_REOPENINGS: Final = 2
"""Of a stream that a picker refused; more would be a load on one that refuses because of that."""
_REFUSED: Final = PickerFailed("the picker refused the stream", fault=Fault.ENDED)
_HALF: Final = PickerFailed("the stream ended within a body", fault=Fault.ENDED)


class Dialogue:
    """One stream of ext_proc. What the picker says is taken where it comes in. See `Hearer`."""

    def __init__(
        self, *, budget: Budget, interrupt: Callable[[Immediate, Metadata], None], reopen: Callable[[int], None]
    ) -> None:
        """`interrupt` hears of an answer that takes the place of everything else, and what comes with it.

        `reopen` hears that the picker did nothing with the stream, and how often that was; it has `resume` called, or
        `give_up`.
        """
        self._call: Call | None = None
        self._turns = budget.turns
        self._interrupt = interrupt
        self._reopen = reopen
        self._reopenings = 0
        self._opened = asyncio.Event()
        """Not set while the stream is opened again."""
        self._opened.set()
        self._opener: tuple[bytes, ...] = ()
        """The first message."""
        self._has_heard = False
        self._is_first = True
        self._is_over = False
        self._farewell: asyncio.TimerHandle | None = None
        self.problem: PickerFailed | None = None
        """Why it ended early."""
        self.request = Direction(budget, keeps=True)
        self.response = Direction(budget)

    @property
    def is_over(self) -> bool:
        """Whether the picker has no more to say."""
        return self._is_over

    @property
    def is_full(self) -> bool:
        """Whether the picker takes no more at the moment."""
        return not self._is_over and (not self._opened.is_set() or self._called.is_full)

    def begin(self, call: Call) -> None:
        """Speak over this call."""
        self._call = call
        call.take_turns(self._turns)

    def resume(self, call: Call) -> None:
        """Say all of it again over another call, whose picker did not hear it before."""
        if self._is_over:
            call.cancel()
            return
        self._call = call
        self._opened.set()
        sent = self.request.all_sent()
        if sent is None:
            self.give_up(_REFUSED)
            return
        try:
            self._send(*self._opener)
            for piece, ends in sent:
                self._send(*encode_body(Phase.REQUEST, piece, end_of_stream=ends))
        except PickerFailed as problem:
            self.give_up(problem)

    def send_head(self, phase: Phase, fields: Fields, *, end: bool, metadata: Metadata | None = None) -> None:
        """Headers of a request, the pseudo headers first, or of a response with `:status`. Raises PickerFailed."""
        context = encode_context(metadata, opens=self._is_first)
        message = (encode_headers(phase, fields, end_of_stream=end), context)
        if self._is_first:
            self._is_first, self._opener = False, message
        self._send(*message)

    def send_body(self, phase: Phase, data: bytes, *, end: bool) -> None:
        """Raises PickerFailed, and OSError where there is no room to keep it."""
        direction = self.request if phase is Phase.REQUEST else self.response
        last = max(0, len(data) - 1) // CHUNK
        pieces = [data[at * CHUNK : (at + 1) * CHUNK] for at in range(last + 1)] if last else [data]
        # All of it is noted before the picker may turn out to be gone.
        for number, piece in enumerate(pieces):
            direction.sent(piece, end=end and number == last)
        if direction.is_released:
            direction.flush()
            return
        for number, piece in enumerate(pieces):
            self._send(*encode_body(phase, piece, end_of_stream=end and number == last))

    async def drained(self) -> None:
        """Returns when the picker takes more. Raises PickerFailed."""
        try:
            await self._opened.wait()
            if self.is_full:
                await self._called.drained()
                await self._opened.wait()
        except StreamEnded as problem:
            self._cannot_send(problem)

    def finish(self, *, patience: float, keeps_request: bool = False) -> None:
        """Say that nothing follows. The picker has some seconds to say the same.

        `keeps_request`: what was sent of it is said to another picker yet, and cleared by whoever does.
        """
        if not keeps_request:
            self.request.clear()
        self.response.clear()
        if self._is_over:
            self._called.cancel()
            return
        self._farewell = asyncio.get_running_loop().call_later(patience, self._called.cancel)
        try:
            self._called.done()
        except StreamEnded:
            self.cancel(keeps_request=keeps_request)

    def give_up(self, problem: PickerFailed) -> None:
        """End it because of the picker."""
        self._called.cancel()
        self._ended(problem)

    def cancel(self, *, keeps_request: bool = False) -> None:
        """Give it up, unless it has ended. See `finish`."""
        self._is_over = True
        self._opened.set()
        if self._call is not None:
            self._call.cancel()
        if not keeps_request:
            self.request.clear()
        self.response.clear()

    def message(self, data: bytes) -> None:
        """See `Hearer`."""
        if self._is_over or self._farewell is not None:
            return
        self._has_heard = True
        try:
            answer, metadata = decode_answer(data)
            if isinstance(answer, Immediate):
                # Nothing else counts from here on.
                self._is_over = True
                self._interrupt(answer, metadata)
            elif answer is not None:
                self._took(answer, metadata)
        except (MessageUnreadable, PickerFailed) as problem:
            self._called.cancel()
            self._ended(_failed(problem))
        except OSError as problem:
            self._called.cancel()
            self._ended(PickerFailed(f"no room for a body: {problem}", fault=Fault.NO_ROOM))

    def ended(self, problem: StreamEnded | None) -> None:
        """See `Hearer`."""
        if self._farewell is not None:
            self._farewell.cancel()
            self._is_over = True
            self._called.cancel()
        elif problem is not None and problem.is_untouched and self._may_reopen():
            self._opened.clear()
            self._reopenings += 1
            self._reopen(self._reopenings)
        elif not self._is_over:
            self._ended(_failed(problem) if problem is not None else None)
            if problem is not None:
                self._called.cancel()

    def _may_reopen(self) -> bool:
        return (
            not (self._is_over or self._has_heard)
            and self._reopenings < _MOST_REOPENINGS
            and self.request.all_sent() is not None
        )

    @property
    def _called(self) -> Call:
        assert self._call is not None  # it begins with one
        return self._call

    def _send(self, *pieces: bytes) -> None:
        if not self._opened.is_set():
            return  # what is sent is kept until it is answered, and said then
        try:
            self._called.send(*pieces)
        except StreamEnded as problem:
            self._cannot_send(problem)

    def _cannot_send(self, problem: StreamEnded) -> None:
        """What the picker said last is worth more than that it takes no more. Raises PickerFailed."""
        if not self._opened.is_set():
            return
        if self.problem is not None or not self._is_over:
            raise self.problem or PickerFailed(str(problem), fault=Fault.ENDED) from problem

    def _took(self, answer: Answer, metadata: Metadata) -> None:
        _check(answer)
        if isinstance(answer, HeadersAnswer | BodyAnswer):
            direction = self.request if answer.phase is Phase.REQUEST else self.response
            direction.took(answer, metadata)

    def _ended(self, problem: PickerFailed | None) -> None:
        """The picker says no more. That ends a request that it did not answer, and leaves an answer as it is."""
        self._is_over = True
        self._opened.set()
        if problem is None and not self.request.is_answered:
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
