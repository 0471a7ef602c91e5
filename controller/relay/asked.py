"""What is asked of an endpoint, and what comes of it, over either protocol."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controller.relay.errors import EndpointFailed
from controller.relay.http1 import Fields


@dataclass(frozen=True)
class Head:
    """The beginning of a request to an endpoint."""

    method: bytes
    target: bytes
    authority: bytes
    scheme: bytes
    fields: Fields
    """Without `host` and what belongs to a connection; with `content-length` where it is known."""
    has_body: bool
    length: int | None
    """Bytes of the body, where it is known."""


class Body(Protocol):
    """The body of a request. Each try reads it from its beginning."""

    def whole(self) -> Sequence[bytes] | None:
        """All of it, where it is there and in memory. Raises PickerFailed as `pieces` does."""
        ...

    def pieces(self) -> AsyncIterator[bytes]: ...


class Exchange(Protocol):
    """A request that was sent to an endpoint."""

    status: int

    @property
    def fields(self) -> Fields: ...

    async def read(self) -> bytes:
        """A piece of the answer's body; empty at its end. Raises EndpointFailed when it breaks off."""
        ...

    def take(self) -> tuple[bytes, bool]:
        """What came of the body already, and whether it has ended with that."""
        ...

    def close(self) -> None:
        """Keep the connection where the answer has ended, else end it."""
        ...


async def first_of(beginning: Coroutine[Any, Any, object], sending: asyncio.Task[None]) -> None:
    """Waits for the answer's beginning. An answer may come before the request has ended.

    What stops the request before raises here, unless it is the endpoint that takes no more: then its answer tells.
    """
    answer = asyncio.create_task(beginning)
    try:
        await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and (problem := sending.exception()) and not answer.done():
            if not isinstance(problem, EndpointFailed):
                raise problem
            # It has ended the connection; what it said before that is there, or nothing is.
            await asyncio.wait({answer}, timeout=1.0)
            if not answer.done():
                raise problem
        await answer
    finally:
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()
