"""HTTP of the picks, byte by byte."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any

import httptools
import pytest

from controller.picker.requests import BodyPieces, Headers
from controller.picker.transport import LARGE, PickProtocol
from controller.picker.workers import NOBODY, Workers
from controller.turns import Turns

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.protocol: asyncio.BaseProtocol | None = None
        self.is_paused = False
        self.ended = asyncio.Event()

    def abort(self) -> None:
        self.ended.set()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Asked:
    """Takes requests with the header `x`."""

    def __init__(self, answer: bytes | Awaitable[bytes] = OK) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.given_up = 0
        self._answer = answer

    def takes(self, method: str, path: str, headers: Headers) -> bool:
        return b"x" in headers

    def answer(
        self, method: str, path: str, headers: Headers, body: BodyPieces, *, worker: int = NOBODY
    ) -> bytes | Awaitable[bytes]:
        self.requests.append((method, path, body.kept))
        return self._answer

    def hung_up(self) -> None:
        self.given_up += 1


class Other(asyncio.Protocol):
    """What takes the connection along."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


def connect(
    asked: Asked, *, turns: Turns | None = None
) -> tuple[PickProtocol, Wire, Other, set[Any]]:  # Any: connections
    wire, other = Wire(), Other()
    connections: set[Any] = set()  # Any: as above
    workers = Workers(ended=lambda worker: None)
    protocol = PickProtocol(
        asked, connections=connections, turns=turns or Turns(8), workers=workers, other=lambda: other
    )
    protocol.connection_made(wire)
    return protocol, wire, other, connections


POST = b"POST /v1/x?q=1 HTTP/1.1\r\nhost: h\r\nX: 1\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /v1/x HTTP/1.1\r\nhost: h\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("request_", [POST, CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_request_is_read_however_it_is_cut(request_: bytes, size: int) -> None:
    asked = Asked()
    protocol, wire, _, connections = connect(asked)
    for _ in range(3):
        for start in range(0, len(request_), size):
            protocol.data_received(request_[start : start + size])
    assert asked.requests == [("POST", "/v1/x", b"hello")] * 3
    assert (wire.written, wire.closed) == (OK * 3, False)
    protocol.connection_lost(None)
    assert (connections, asked.given_up) == (set(), 0)


@pytest.mark.parametrize("size", [1, 1000])
def test_other_request_takes_the_connection_along(size: int) -> None:
    asked = Asked()
    protocol, wire, other, connections = connect(asked)
    protocol.data_received(POST)
    get = b"GET /pools HTTP/1.1\r\nhost: h\r\n\r\n"
    for start in range(0, len(get), size):
        protocol.data_received(get[start : start + size])
    assert wire.protocol is other
    assert other.received == get
    assert (len(asked.requests), connections) == (1, set())


@pytest.mark.parametrize(
    "request_",
    [POST.replace(b"1.1", b"1.0"), POST.replace(b"host: h", b"connection: close"), POST.replace(b"host", b"upgrade")],
)
def test_connection_that_is_not_kept_is_closed(request_: bytes) -> None:
    asked = Asked()
    protocol, wire, _, _ = connect(asked)
    protocol.data_received(request_)
    assert (wire.written, wire.closed) == (OK, True)


class Broken(Asked):
    """Fails at what it is asked."""

    def answer(
        self, method: str, path: str, headers: Headers, body: BodyPieces, *, worker: int = NOBODY
    ) -> bytes | Awaitable[bytes]:
        raise ZeroDivisionError


def test_failure_to_answer_is_no_malformed_request() -> None:
    protocol, wire, _, _ = connect(Broken())
    with pytest.raises(httptools.HttpParserCallbackError):
        protocol.data_received(POST)
    assert wire.written == b""


async def test_failure_after_a_wait_ends_the_connection() -> None:
    async def fail() -> bytes:
        raise ZeroDivisionError

    told: list[Mapping[str, Any]] = []  # Any: as asyncio tells it
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    protocol, wire, _, _ = connect(Asked(fail()))
    protocol.data_received(POST)
    await asyncio.wait_for(wire.ended.wait(), 10.0)
    assert wire.written == b""
    assert [type(one["exception"]) for one in told] == [ZeroDivisionError]


@pytest.mark.parametrize(
    "request_", [b"nonsense\r\n\r\n", POST.replace(b"POST", b"FOO"), POST.replace(b" /", b" /\xc3\xa4")]
)
def test_malformed_request_is_refused_in_json(request_: bytes) -> None:
    protocol, wire, _, _ = connect(Asked())
    protocol.data_received(request_)
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert wire.closed


def test_client_that_waits_to_send_its_body_is_told_to() -> None:
    protocol, wire, _, _ = connect(Asked())
    protocol.data_received(POST.replace(b"host: h", b"expect: 100-continue").partition(b"hello")[0])
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    protocol.data_received(b"hello")
    assert wire.written.endswith(OK)


def test_hang_up_in_the_body_is_counted() -> None:
    asked = Asked()
    protocol, _, _, connections = connect(asked)
    protocol.data_received(POST[:-2])
    protocol.connection_lost(None)
    assert (asked.given_up, asked.requests, connections) == (1, [], set())


async def test_answer_that_takes_time_is_sent_when_it_is_there() -> None:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    protocol, wire, _, _ = connect(Asked(answer))
    protocol.data_received(POST)
    assert wire.written == b""
    answer.set_result(OK)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.written == OK


async def test_hang_up_while_an_answer_takes_time_cancels_it() -> None:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    asked = Asked(answer)
    protocol, _, _, _ = connect(asked)
    protocol.data_received(POST)
    protocol.connection_lost(None)
    assert (answer.cancelled(), asked.given_up) == (True, 0)


def test_stop_closes_idle_connections_and_lets_others_finish() -> None:
    idle, wire, _, _ = connect(Asked())
    idle.data_received(POST)
    idle.shutdown()
    assert wire.closed
    busy, wire, _, _ = connect(Asked())
    busy.data_received(POST[:-2])
    busy.shutdown()
    assert not wire.closed
    busy.data_received(POST[-2:])
    assert (wire.written, wire.closed) == (OK, True)


async def test_second_request_before_the_answer_to_the_first_is_not_answered() -> None:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    asked = Asked(answer)
    protocol, wire, _, _ = connect(asked)
    protocol.data_received(POST)
    protocol.data_received(POST)
    answer.set_result(OK)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (len(asked.requests), wire.written, wire.closed) == (1, OK, True)


_BEGUN = b"POST /v1/x HTTP/1.1\r\nx: 1\r\ncontent-length: %d\r\n\r\n" % (LARGE + 3) + b"x" * (LARGE + 1)


def test_large_bodies_are_received_in_turn() -> None:
    asked, turns = Asked(), Turns(2)
    some = [connect(asked, turns=turns)[:2] for _ in range(5)]
    for protocol, _ in some:
        protocol.data_received(_BEGUN)
    assert [wire.is_paused for _, wire in some] == [False, False, True, True, True]
    some[1][0].data_received(b"xx")
    assert [wire.is_paused for _, wire in some] == [False, False, False, True, True]
    some[3][0].connection_lost(None)  # waits
    some[0][0].connection_lost(None)  # has a turn
    assert not some[4][1].is_paused
    for number in (2, 4):
        some[number][0].data_received(b"xx")
    assert ([size for *_, size in asked.requests], asked.given_up) == ([b"x" * (LARGE + 3)] * 3, 2)
    begun = [connect(asked, turns=turns)[:2] for _ in range(3)]
    for protocol, _ in begun:
        protocol.data_received(_BEGUN)
    assert [wire.is_paused for _, wire in begun] == [False, False, True], "all turns were given back"


def test_turn_of_a_connection_that_is_closing_goes_on() -> None:
    turns = Turns(1)
    first, second, third = (connect(Asked(), turns=turns)[:2] for _ in range(3))
    for protocol, _ in (first, second, third):
        protocol.data_received(_BEGUN)
    second[1].closed = True
    first[0].data_received(b"xx")
    assert (second[1].is_paused, third[1].is_paused) == (True, True), "nothing is read where nothing can be answered"
    second[0].connection_lost(None)
    assert not third[1].is_paused


def test_small_body_needs_no_turn() -> None:
    asked, turns = Asked(), Turns(0)
    protocol, wire, _, _ = connect(asked, turns=turns)
    protocol.data_received(POST[:-1])
    protocol.data_received(POST[-1:])
    protocol.data_received(_BEGUN + b"xx")
    assert (len(asked.requests), wire.is_paused) == (2, False)


def test_connection_that_rests_keeps_no_body() -> None:
    kept: list[BodyPieces] = []

    class Keeps(Asked):
        def answer(self, method: str, path: str, headers: Headers, body: BodyPieces, *, worker: int = NOBODY) -> bytes:
            kept.append(body)
            return OK

    protocol, *_ = connect(Keeps())
    protocol.data_received(POST)
    assert [body.kept for body in kept] == [b""]
