"""The calls of gateways that are exchanges of HTTP.

Parts are answered where they come in. A task is made only for a request that waits for its turn.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable
from itertools import count

from controller.extproc.decoding import decode_received
from controller.extproc.grpc import INTERNAL, INVALID_ARGUMENT, OK
from controller.extproc.http2.served import CallOf, Stream
from controller.extproc.messages import MessageUnreadable
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.exchange import Exchange
from controller.picker.ext_proc.replies import Replies
from controller.picker.ext_proc.verdicts import Verdict

log = logging.getLogger(__name__)


def exchanges(desk: Desk) -> CallOf:
    """Calls that are exchanges."""
    # Identities of requests are of this process; others may ask the same endpoints.
    prefix, numbers = os.urandom(6).hex(), count(1)
    return lambda stream: ExchangeCall(stream, desk, f"{prefix}{next(numbers):x}")


class ExchangeCall:
    """One exchange. See `Call`."""

    __slots__ = ("_desk", "_exchange", "_held", "_is_over", "_stream", "_waiting")

    def __init__(self, stream: Stream, desk: Desk, identity: str) -> None:
        self._stream = stream
        self._desk = desk
        self._exchange = Exchange(desk, identity)
        self._waiting: asyncio.Future[Verdict] | None = None
        self._is_over = False
        self._held = 0
        """Bytes of a message that is not whole."""
        desk.open += 1

    def message(self, data: bytes) -> None:
        """See `Call`."""
        try:
            received = decode_received(data)
            if received.observes:
                return
            answer = self._exchange.take(received)
        except MessageUnreadable as problem:
            log.warning("stream of a gateway cannot be read", extra={"problem": str(problem)})
            self._close(end=End.UNREADABLE)
            self._stream.end(INVALID_ARGUMENT, str(problem))
            return
        except Exception:  # whatever it is, the other streams of the connection go on
            self._fail()
            return
        if not isinstance(answer, tuple):
            self._wait(answer)
            return
        if self._waiting is not None and not self._exchange.is_waiting:
            # The gateway went on without a verdict.
            self._waiting.cancel()
        self._reply(answer)

    def holds(self, size: int) -> bool:
        """See `Call`."""
        desk = self._desk
        desk.held += size - self._held
        self._held = size
        if desk.held <= desk.body_memory:
            return True
        self._reply(self._exchange.overflows(size))
        return False

    def half_closed(self) -> None:
        """See `Call`."""
        self._close()
        self._stream.end(OK)

    def drained(self) -> None:
        """See `Call`."""
        self._exchange.sent()

    def gone(self) -> None:
        """See `Call`."""
        self._close()

    def _wait(self, verdict: Awaitable[Verdict]) -> None:
        self._waiting = asyncio.ensure_future(verdict)
        self._waiting.add_done_callback(self._decided)

    def _decided(self, done: asyncio.Future[Verdict]) -> None:
        self._waiting = None
        if done.cancelled() or self._is_over:
            return
        try:
            replies = self._exchange.decided(done.result())
        except Exception:  # as above
            self._fail()
            return
        self._reply(replies)

    def _fail(self) -> None:
        """End the stream for the exception that is handled: the gateway does what it does without a picker."""
        log.exception("exchange failed")
        self._close(end=End.FAILED)
        self._stream.end(INTERNAL, "the endpoint picker failed")

    def _reply(self, replies: Replies) -> None:
        stream, exchange = self._stream, self._exchange
        for reply in replies:
            stream.send(reply)
        if replies and stream.is_drained:
            exchange.sent()
        if exchange.is_over:
            self._close()
            stream.end(OK)

    def _close(self, *, end: End | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._desk.open -= 1
        self._desk.held -= self._held
        if self._waiting is not None:
            self._waiting.cancel()
        self._exchange.close(end=end)
