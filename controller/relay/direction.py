"""One direction of an exchange on its way through the picker: its headers, and its body.

The request and the response pass in the same way: headers and pieces of the body are sent, and what the picker makes of
them comes back, in any order.
"""

import asyncio
from collections.abc import Iterator

from controller.extproc.messages import BodyAnswer, HeadersAnswer, Metadata
from controller.relay.errors import Fault, PickerFailed, RelayError
from controller.relay.outlet import Outlet
from controller.relay.pieces import Budget
from controller.relay.reflection import Reflection


class Direction:
    """The request, or the response."""

    def __init__(self, budget: Budget, *, keeps: bool = False) -> None:
        """`keeps`: whether it may have to be said again."""
        self._head: asyncio.Future[HeadersAnswer | None] = asyncio.get_running_loop().create_future()
        self.metadata: Metadata = {}
        """That came with it."""
        self.body = Outlet(budget)
        """What becomes of the body."""
        self._reflection = Reflection(budget, keeps=keeps)
        self.is_released = False
        """Whether the rest goes on without the picker."""
        self.awaited_since: float | None = None
        """Since when, as the loop counts, the picker has a part of the body and said nothing; None: it owes nothing."""

    @property
    def is_half(self) -> bool:
        """Whether a part of the body is the picker's, and more of it is to come."""
        return self._reflection.is_changed and not self.body.has_ended

    @property
    def is_answered(self) -> bool:
        """Whether it is known what becomes of the headers."""
        return self._head.done()

    async def head(self, *, patience: float, what: str) -> HeadersAnswer | None:
        """What becomes of the headers; None where the picker is gone and they stay as they are.

        Raises PickerFailed, also when it takes longer than so many seconds.
        """
        if self._head.done():
            return self._head.result()
        timer = asyncio.get_running_loop().call_later(patience, self._late, what)
        try:
            return await self._head
        finally:
            timer.cancel()

    def sent(self, piece: bytes, *, end: bool) -> None:
        if self.body.has_ended:  # the picker wants no more of it
            self._reflection.missed(piece)
            return
        self._reflection.sent(piece, end=end)
        if self.awaited_since is None:
            self.awaited_since = asyncio.get_running_loop().time()

    def took(self, answer: HeadersAnswer | BodyAnswer, metadata: Metadata) -> None:
        if self.is_released:
            return
        reflection = self._reflection
        if isinstance(answer, HeadersAnswer):
            # It gives nothing of the body back.
            self._took_head(answer, metadata)
            is_awaited = self.awaited_since is not None
        else:
            end, chunk = answer.end_of_stream, answer.chunk
            self.body.add(
                reflection.streamed(chunk or b"", end=end) if answer.is_streamed else reflection.answered(chunk)
            )
            is_awaited = reflection.is_awaited
        if self._reflection.has_ended:
            self.body.end()
        self.awaited_since = asyncio.get_running_loop().time() if is_awaited else None

    def all_sent(self) -> list[tuple[bytes, bool]] | None:
        """What the picker got, and whether it ended with that; None where it is too large to be sent again."""
        pieces = self._reflection.all_sent()
        if pieces is None:
            return None
        ends = self._reflection.has_sent_end
        return [(piece, ends and number == len(pieces)) for number, piece in enumerate(pieces, start=1)]

    def original(self) -> Iterator[bytes]:
        """All that was sent of the body, once nothing more is. It is not to be used otherwise after that."""
        yield from self.body.beginning(self._reflection.same)
        yield from self._reflection.others()

    def forget(self) -> None:
        """It is not to be said again."""
        self._reflection.forget()

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
        if not self._head.done():
            self._head.set_result(None)

    def fail(self, problem: RelayError) -> None:
        self._fail_head(problem)
        self.body.fail(problem)

    def clear(self) -> None:
        self._reflection.clear()
        self.body.clear()

    def _took_head(self, answer: HeadersAnswer, metadata: Metadata) -> None:
        if self._head.done():
            return
        if answer.body is not None:
            self.is_released = True
            self.body.add(answer.body)
            self.body.end()
        self.metadata = metadata
        self._head.set_result(answer)

    def _late(self, what: str) -> None:
        self._fail_head(PickerFailed(f"the picker is late with {what}", fault=Fault.LATE))

    def _fail_head(self, problem: RelayError) -> None:
        if not self._head.done():
            self._head.set_exception(problem)
            self._head.exception()  # nobody may be waiting
