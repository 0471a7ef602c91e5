"""Connections to endpoints that are kept, over HTTP/1.1 or HTTP/2, and requests over them."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from controller.dialed import dialed_socket
from controller.extproc.http2 import client as http2
from controller.extproc.http2.frames import StreamEnded
from controller.headers import TryOutcome
from controller.relay import http1, http1_exchange, http2_exchange
from controller.relay.asked import Body, Exchange, Head
from controller.relay.errors import EndpointFailed
from controller.relay.places import connected, connected_http2

IDLE: Final = 4.0
"""Seconds. Below the 5 s after which model servers on uvicorn close an idle connection, as in `keepalive.conf`."""
_MOST_IDLE: Final = 64
_MOST_HTTP2: Final = 16
"""Connections to one endpoint over HTTP/2: one, and another where all have as many streams as the endpoint takes."""


class Endpoints:
    """Connections to endpoints, by the place where they are reached."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[http1.Connection]] = {}
        self._http2: dict[str, list[asyncio.Task[http2.Connection]]] = {}

    async def ask(self, address: str, head: Head, body: Body, *, speaks_http2: bool) -> Exchange:
        """Send a request, and wait until its answer begins.

        Raises EndpointFailed when the endpoint cannot be reached, or ends the connection before.
        """
        if speaks_http2:
            return await self._ask_http2(address, head, body)
        if (kept := self._kept(address)) is not None:
            try:
                return await self._ask_http1(kept, address, head, body)
            except EndpointFailed:
                pass  # closed in the same moment; the endpoint itself is asked again
        return await self._ask_http1(await connected(http1.Connection, address), address, head, body)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        for task in (task for tasks in self._http2.values() for task in tasks):
            if (made := _made(task)) is not None:
                made.close("the relay ends")
            task.cancel()

    def forget(self, addresses: Sequence[str]) -> None:
        """Close what is kept to these addresses."""
        endings = tuple(dialed_socket("", address) for address in addresses)
        dialed = [place for place in {*self._idle, *self._http2} if place.endswith(endings)]
        for address in (*addresses, *dialed):
            for connection in self._idle.pop(address, ()):
                connection.close()
            for task in [task for task in self._http2.get(address, ()) if task.done()]:
                if (made := _made(task)) is not None and made.streams == 0:
                    made.close("the endpoint is gone")
                self._drop(address, task)

    def keep(self, address: str, connection: http1.Connection) -> None:
        idle = self._idle.setdefault(address, deque())
        connection.idle_since = asyncio.get_running_loop().time()
        idle.append(connection)
        while len(idle) > _MOST_IDLE:
            idle.popleft().close()

    def sweep(self) -> None:
        """Close connections that are idle for too long."""
        now = asyncio.get_running_loop().time()
        for address, idle in list(self._idle.items()):
            while idle and (now - idle[0].idle_since > IDLE or not idle[0].is_open):
                idle.popleft().close()
            if not idle:
                del self._idle[address]
        for address, tasks in list(self._http2.items()):
            for task in tasks[1:]:
                if (connection := _made(task)) is not None and connection.streams == 0:
                    connection.close("it is needed no more")
                    self._drop(address, task)

    def _kept(self, address: str) -> http1.Connection | None:
        idle = self._idle.get(address)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.is_open and now - connection.idle_since <= IDLE:
                return connection
            connection.close()
        return None

    async def _ask_http1(self, connection: http1.Connection, address: str, head: Head, body: Body) -> Exchange:
        return await http1_exchange.ask(connection, address, head, body, keep=self.keep)

    async def _ask_http2(self, address: str, head: Head, body: Body) -> Exchange:
        failure, failures = EndpointFailed(f"{address} takes no more streams", outcome=TryOutcome.FAILED), 0
        for _ in range(_MOST_HTTP2 + 1):
            task = self._free(address)
            if task is None:
                break
            connection = await asyncio.shield(task)
            if connection.is_full and connection.failure is None:
                continue  # others who waited for it were first
            try:
                stream = await http2_exchange.begin(connection, head)
            except StreamEnded as problem:
                self._drop(address, task)
                failure, failures = EndpointFailed(str(problem)), failures + 1
                if failures == 2:
                    break
                continue
            return await http2_exchange.ask(stream, head, body)
        raise failure

    def _free(self, address: str) -> asyncio.Task[http2.Connection] | None:
        """A connection that takes another stream; another one where none does. None: there are too many.

        Those who ask while one is opened wait for the same.
        """
        tasks = self._http2.setdefault(address, [])
        tasks[:] = [task for task in tasks if not task.done() or _made(task) is not None]
        for task in tasks:
            if not task.done() or not task.result().is_full:
                return task
        if len(tasks) >= _MOST_HTTP2:
            return None
        tasks.append(asyncio.create_task(connected_http2(address)))
        return tasks[-1]

    def _drop(self, address: str, task: asyncio.Task[http2.Connection]) -> None:
        tasks = self._http2.get(address, [])
        if task in tasks:
            tasks.remove(task)
        if not tasks:
            self._http2.pop(address, None)


def _made(task: asyncio.Task[http2.Connection]) -> http2.Connection | None:
    """The connection that a task opened, while it takes streams."""
    if not task.done() or task.cancelled() or task.exception() is not None or task.result().failure is not None:
        return None
    return task.result()
