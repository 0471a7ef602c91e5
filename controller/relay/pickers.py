"""Connections to pickers: one for each address, shared by all pools and requests, watched while it is there."""

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controller.alt_names import is_known
from controller.bundle import PickerTls
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import METHOD, SERVICE
from controller.relay import grpc
from controller.relay.errors import Fault, PickerFailed
from controller.relay.grpc import Answers, Call, Hearer, call_head
from controller.relay.places import host_and_port

log = logging.getLogger(__name__)

_HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"
WINDOW: Final = 512 * 1024
"""Bytes that a picker may send ahead on a stream: what it gives back of a prompt of 220 KB comes without a pause."""
_SERVING: Final = 1
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries to connect; in between, requests fail at once."""
_MOST_PINGS: Final = 2
"""Until the picker sends headers or data again. Servers of gRPC close the connection at the fourth in 5 minutes."""
_PING_EVERY: Final = 310.0
"""Seconds after which another ping is taken all the same. Source: gRPC, A8-client-side-keepalive.md."""


@dataclass(frozen=True)
class Patience:
    """How long pickers are waited for, in seconds."""

    connect: float = 1.0
    answer: float = 90.0
    """For what a picker owes. Longer than any wait in a picker's queue: to wait is no failure."""
    silence: float = 2.0
    """Without a byte on a connection with requests under way, after which it is asked whether it lives."""
    pong: float = 3.0
    """For the answer to that: half of it to a question after its health, half of it to a ping."""
    check: float = 2.0
    """Between two questions after a picker's health."""


@dataclass(frozen=True)
class Place:
    """Where a picker is, and how it is spoken to."""

    address: str
    """`ip:port`."""
    authority: str
    tls: PickerTls | None


class Pickers:
    """Connections by place. Those that no pool names any more end with their last request."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._links: dict[Place, _Link] = {}

    async def call(self, places: Sequence[Place], hearer: Hearer, *, refused: int = 0) -> Call:
        """Open a call to one of the places: those first that say they are well, then in order.

        After one was `refused`, begins at the next. Raises PickerFailed, also where none takes another stream in time.
        """
        links = [self._link(place) for place in places]
        if len(links) > 1:
            links.sort(key=lambda link: (link.is_failing, not link.is_serving, link.is_full))
            first = refused % len(links)
            links = [*links[first:], *links[:first]]
        reason = "its Service has no ready endpoint"
        try:
            async with asyncio.timeout(self._patience.answer):
                for link in links:
                    try:
                        return await link.call(hearer)
                    except PickerFailed as problem:
                        reason = str(problem)
        except TimeoutError as problem:
            raise PickerFailed("the picker takes no more streams", fault=Fault.LATE) from problem
        raise PickerFailed(reason, fault=Fault.UNREACHABLE)

    def keep(self, places: set[Place]) -> None:
        """Forget all others."""
        for place in self._links.keys() - places:
            self._links.pop(place).retire()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()

    def states(self) -> list[dict[str, object]]:
        """What is known of each connection, for a reader."""
        return [link.state() for link in self._links.values()]

    def by_address(self) -> "dict[str, list[_Link]]":
        """Connections by the address of the picker, which several pools may know by different names; sorted."""
        found: dict[str, list[_Link]] = {}
        for place in sorted(self._links, key=lambda place: place.address):
            found.setdefault(place.address, []).append(self._links[place])
        return found

    def _link(self, place: Place) -> "_Link":
        if place not in self._links:
            self._links[place] = _Link(place, self._patience)
        return self._links[place]


class _Link:
    """The connection to one place, opened when it is asked for."""

    def __init__(self, place: Place, patience: Patience) -> None:
        self._place = place
        self._patience = patience
        self._opening: asyncio.Task[Connection] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._reason = ""
        self._head = call_head(METHOD, authority=place.authority, is_tls=place.tls is not None)
        self.is_serving = True
        """False where the picker says that it is not; it is asked all the same where no other is."""

    @property
    def is_failing(self) -> bool:
        return asyncio.get_running_loop().time() < self._not_before

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.failure is None

    @property
    def is_full(self) -> bool:
        return self._connection is not None and self._connection.is_full

    @property
    def streams(self) -> int:
        return self._connection.streams if self._connection is not None else 0

    def state(self) -> dict[str, object]:
        return {
            "address": self._place.address,
            "tls": "none" if self._place.tls is None else "verified" if self._place.tls.ca else "unverified",
            "connected": self.is_connected,
            "streams": self.streams,
            "serving": self.is_serving,
            "failure": "" if self.is_connected else self._reason,
        }

    async def call(self, hearer: Hearer) -> Call:
        """Raises PickerFailed."""
        for _ in range(2):
            connection = await self._connected()
            try:
                return await grpc.call(connection, self._head, hearer)
            except StreamEnded as problem:
                self._reason = str(problem)
        raise PickerFailed(f"{self._place.address}: {self._reason}", fault=Fault.UNREACHABLE)

    def retire(self) -> None:
        """End with the last request under way."""
        if self._connection is not None and self._connection.streams:
            self._connection.failure = self._connection.failure or "no pool names this picker any more"
        else:
            self.close()

    def close(self) -> None:
        for task in (self._opening, self._watching):
            if task is not None:
                task.cancel()
        if self._connection is not None:
            self._connection.close("the relay needs it no more")

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.failure is None:
            return self._connection
        if self._opening is None or self._opening.done():
            if self.is_failing:
                raise PickerFailed(f"{self._place.address}: {self._reason}", fault=Fault.UNREACHABLE)
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = host_and_port(self._place.address)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._patience.connect):
                context = await asyncio.to_thread(_context, self._place.tls) if self._place.tls else None
                name = (self._place.tls.server_name or host) if self._place.tls else None
                transport, connection = await loop.create_connection(
                    lambda: Connection(stream_window=WINDOW), host, port, ssl=context, server_hostname=name
                )
                _keep_alive(transport, patience=self._patience.silence + self._patience.pong)
                if self._place.tls:
                    _check_names(transport, self._place.tls)
                await connection.ready
        except (OSError, TimeoutError, StreamEnded, ValueError) as problem:
            if connection is not None:
                connection.close("it did not become ready")
            self._reason = f"cannot be reached: {problem}" if str(problem) else "cannot be reached in time"
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._not_before = loop.time() + self._pause
            log.warning("picker cannot be reached", extra={"picker": self._place.address, "reason": self._reason})
            raise PickerFailed(f"{self._place.address}: {self._reason}", fault=Fault.UNREACHABLE) from problem
        self._pause, self.is_serving, self._reason = 0.0, True, ""
        if self._watching is not None:
            self._watching.cancel()
        self._connection = connection
        self._watching = asyncio.create_task(self._watch(connection))
        log.info("connected to a picker", extra={"picker": self._place.address, "tls": self._place.tls is not None})
        return connection

    async def _watch(self, connection: Connection) -> None:
        """Ends a connection that is silent, and asks for the picker's health."""
        loop = asyncio.get_running_loop()
        patience = self._patience
        checks_health, checked_at = True, 0.0
        while connection.failure is None or connection.streams:
            await asyncio.sleep(min(patience.silence, patience.check) / 2)
            is_quiet = connection.streams and loop.time() - connection.heard_at > patience.silence
            if is_quiet and not await self._lives(connection):
                self._reason = "it does not answer"
                connection.close(self._reason)
            if checks_health and connection.failure is None and loop.time() - checked_at > patience.check:
                checked_at = loop.time()
                checks_health = await self._check(connection)
        connection.close(connection.failure or "")

    async def _lives(self, connection: Connection) -> bool:
        """Whether the other end is there. One that cannot be asked for a while is taken for one that is.

        A call is what every picker takes at any time, and refuses at once where it does not know it. Pings are counted,
        so they are for pickers that have no time for calls, or take no more streams.
        """
        loop = asyncio.get_running_loop()
        asked_at, patience = loop.time(), self._patience.pong / 2
        with suppress(StreamEnded, TimeoutError):
            async with asyncio.timeout(patience):
                await _health(connection, SERVICE, place=self._place)
        if connection.heard_at >= asked_at:
            return True
        if connection.pings >= _MOST_PINGS and loop.time() - connection.pinged_at < _PING_EVERY:
            return True
        with suppress(StreamEnded, TimeoutError):
            async with asyncio.timeout(patience):
                await connection.ping()
        return connection.heard_at >= asked_at

    async def _check(self, connection: Connection) -> bool:
        """Ask for the health of the service. False where a picker has no answer to that."""
        is_serving = True
        answers = False
        for service in (SERVICE, ""):
            try:
                async with asyncio.timeout(self._patience.connect):
                    status = await _health(connection, service, place=self._place)
            except (StreamEnded, TimeoutError):
                continue
            answers, is_serving = True, status == _SERVING
            break
        if is_serving != self.is_serving:
            log.info("picker changed its health", extra={"picker": self._place.address, "serving": is_serving})
        self.is_serving = is_serving
        return answers


def _keep_alive(transport: asyncio.BaseTransport, *, patience: float) -> None:
    """Have the kernel end a connection whose other end acknowledges nothing for some seconds, idle or not."""
    found = transport.get_extra_info("socket")
    seconds = max(1, math.ceil(patience))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 2))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


async def _health(connection: Connection, service: str, *, place: Place) -> int:
    """Status of a service, as HealthCheckResponse numbers it. Raises StreamEnded where it has none."""
    head = call_head(_HEALTH_METHOD, authority=place.authority, is_tls=place.tls is not None)
    answers = Answers()
    call = await grpc.call(connection, head, answers)
    try:
        name = service.encode()
        call.send(b"\x0a" + bytes((len(name),)) + name if name else b"")
        call.done()
        answer = await answers.receive()
    finally:
        call.cancel()
    # One field, an enumeration; absent it is 0.
    return answer[1] if answer and answer[:1] == b"\x08" and len(answer) > 1 else 0


def _context(tls: PickerTls) -> ssl.SSLContext:
    """Raises ValueError when the certificates cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if tls.ca:
        # Other names than the one that is asked for are compared after the handshake.
        context.check_hostname = not (tls.hostnames or tls.uris)
        try:
            context.load_verify_locations(cadata=tls.ca)
        except ssl.SSLError as error:
            raise ValueError(f"its authority's certificates cannot be read: {error}") from error
        return context
    # As in the field: pickers serve with certificates that they made themselves.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _check_names(transport: asyncio.BaseTransport, tls: PickerTls) -> None:
    """Raises ValueError when a certificate, which an authority vouches for, has none of the wanted names."""
    if not (tls.hostnames or tls.uris):
        return
    shown = transport.get_extra_info("peercert") or {}
    names = tuple((str(kind), str(name)) for kind, name in shown.get("subjectAltName", ()))
    if not is_known(names, hostnames=tls.hostnames, uris=tls.uris):
        raise ValueError("its certificate has none of the names")
