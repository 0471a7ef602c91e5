"""The server of HTTP/2 against clients that keep to no rule, and against those that use all of them."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived, WindowUpdated
from h2.settings import SettingCodes

from controller.extproc.encoding import encode_part
from controller.extproc.messages import METHOD, Part

from .conftest import TIMEOUT, Gateway, Served, body_parts, request_headers, served_picker

POD = "127.1.0.1:8000"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = [(":method", "POST"), (":scheme", "http"), (":authority", "p"), (":path", METHOD), ("te", "trailers")]
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def message(data: bytes) -> bytes:
    return struct.pack(">BL", 0, len(data)) + data


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


PATH = literal(b":path", METHOD.encode())
OPEN = PREFACE + SETTINGS + frame(1, 4, 1, PATH)

BROKEN = {
    "no preface": b"GET / HTTP/1.1\r\n\r\n",
    "half a preface, then another": PREFACE[:10] + b"x" * 20,
    "a frame that is too large": PREFACE + SETTINGS + struct.pack(">HBBBL", 0xFFFF, 0xFF, 0, 0, 1),
    "headers before the settings": PREFACE + frame(1, 4, 1, PATH),
    "a stream with an even number": PREFACE + SETTINGS + frame(1, 4, 2, PATH),
    "headers that are no HPACK": PREFACE + SETTINGS + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    "headers that are interrupted": PREFACE + SETTINGS + frame(1, 0, 1, PATH) + frame(6, 0, 0, bytes(8)),
    "headers that go on and did not begin": PREFACE + SETTINGS + frame(9, 4, 1, PATH),
    "headers that go on for ever": PREFACE + SETTINGS + frame(1, 0, 1, PATH) + frame(9, 0, 1, bytes(16_000)) * 5,
    "data of a stream that did not begin": PREFACE + SETTINGS + frame(0, 0, 7, b"x"),
    "data behind the end": OPEN + frame(0, 0, 1, message(encode_part(request_headers()))) + frame(0, 9, 1, b""),
    "a reset of a stream that did not begin": PREFACE + SETTINGS + frame(3, 0, 7, bytes(4)),
    "a ping that is too short": PREFACE + SETTINGS + frame(6, 0, 0, b"x"),
    "a window that is too short": PREFACE + SETTINGS + frame(8, 0, 0, b"x"),
    "a window that is too large": PREFACE + SETTINGS + frame(8, 0, 0, struct.pack(">L", 2**31 - 1)) * 2,
    "settings that are cut": PREFACE + frame(4, 0, 0, b"xyz"),
    "a push": PREFACE + SETTINGS + frame(5, 4, 1, bytes(4)),
    "more padding than bytes": OPEN + frame(0, 8, 1, b"\x09x"),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_connection_that_breaks_http_2_is_ended(picker: Served, sent: bytes) -> None:
    await picker.serving(POD)
    host, _, port = picker.address.rpartition(":")
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        writer.close()
    await picker.at_rest()


@pytest.mark.parametrize("cut", [1, 24, 30, 33, 40, len(OPEN) - 1, len(OPEN)])
async def test_connection_may_be_lost_at_every_point(picker: Served, cut: int) -> None:
    await picker.serving(POD)
    host, _, port = picker.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(OPEN[:cut])
    await writer.drain()
    writer.close()
    await picker.at_rest()


@dataclass
class Client:
    """A client of HTTP/2 by the book."""

    connection: H2Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    def open(self) -> int:
        """A stream with the head of a call."""
        stream: int = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, HEADERS)
        self.flush()
        return stream

    async def events(self) -> AsyncIterator[object]:
        while data := await self.reader.read(65_536):
            for event in self.connection.receive_data(data):
                yield event
            self.flush()


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Client]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    client = Client(connection, reader, writer)
    client.flush()
    try:
        async with asyncio.timeout(TIMEOUT):
            # The server's settings and the window of the connection.
            connection.receive_data(await reader.read(65_536))
            client.flush()
            yield client
    finally:
        writer.close()


async def test_message_may_come_byte_by_byte_and_padded(picker: Served) -> None:
    await picker.serving(POD)
    async with client_of(picker.address) as client:
        stream = client.open()
        data = message(encode_part(request_headers(ends=True), opens=True))
        for number in range(len(data)):
            client.connection.send_data(stream, data[number : number + 1], pad_length=number % 7)
            client.flush()
        async for event in client.events():
            if isinstance(event, DataReceived):
                assert POD.encode() in event.data
                break
        client.connection.end_stream(stream)
        client.flush()
        async for event in client.events():
            if isinstance(event, TrailersReceived):
                assert (b"grpc-status", b"0") in [(_bytes(name), _bytes(value)) for name, value in event.headers]
                break
    await picker.at_rest()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


async def test_body_waits_for_a_client_that_takes_little(picker: Served) -> None:
    """It has a window of 1,000 bytes for each stream, and gives it back as it reads."""
    await picker.serving(POD)
    body = bytes(200_000)
    async with client_of(picker.address) as client:
        client.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        stream = client.open()
        parts: list[Part] = [request_headers(), *body_parts(body)]
        for number, part in enumerate(parts):
            for piece in _pieces(message(encode_part(part, opens=number == 0))):
                client.connection.send_data(stream, piece)
        client.flush()
        received, size = 0, 0
        async for event in client.events():
            if isinstance(event, DataReceived):
                size = max(size, len(event.data))
                received += len(event.data)
                client.connection.acknowledge_received_data(event.flow_controlled_length, stream)
            if received > len(body):
                break
        assert size <= 1000
        client.connection.reset_stream(stream)
        client.flush()
        await picker.at_rest()


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + 4000] for start in range(0, len(data), 4000)]


async def test_stream_that_nobody_reads_stops_no_other(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    async with client_of(picker.address) as client:
        client.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.flush()
        client.connection.send_data(client.open(), message(encode_part(request_headers(ends=True), opens=True)))
        client.flush()

        talk = gateway.talk()
        await talk.ask(body=bytes(100_000))
        assert await talk.picked() == POD
        assert (await talk.body())[0] == bytes(100_000)
    await talk.respond(b"{}")
    await talk.close()
    await picker.at_rest()


async def test_streams_that_are_reset_at_once_leave_nothing(picker: Served) -> None:
    await picker.serving(POD)
    async with client_of(picker.address) as client:
        for _ in range(2000):
            stream = client.open()
            client.connection.send_data(stream, message(encode_part(request_headers(ends=True), opens=True)))
            client.connection.reset_stream(stream)
            client.flush()
        await client.writer.drain()
        await picker.at_rest()


@pytest.mark.parametrize("head", [b"\x01\x00\x00\x00\x01", b"\x00\xff\xff\xff\xff"], ids=["compressed", "too large"])
async def test_message_that_cannot_be_taken_ends_its_stream_alone(picker: Served, head: bytes) -> None:
    await picker.serving(POD)
    async with client_of(picker.address) as client:
        bad, good = client.open(), client.open()
        client.connection.send_data(good, message(encode_part(request_headers(ends=True), opens=True)))
        client.connection.send_data(bad, head + b"x")
        client.flush()
        seen: set[tuple[str, int]] = set()
        async for event in client.events():
            if isinstance(event, StreamReset | StreamEnded):
                seen.add(("ended", event.stream_id or 0))
            if isinstance(event, DataReceived):
                seen.add(("answered", event.stream_id or 0))
            if {("ended", bad), ("answered", good)} <= seen:
                break
    await picker.at_rest()


async def test_message_that_is_cut_off_is_an_error_of_its_stream(picker: Served) -> None:
    await picker.serving(POD)
    async with client_of(picker.address) as client:
        stream = client.open()
        client.connection.send_data(stream, b"\x00\x00\x00\x00\x09abc", end_stream=True)
        client.flush()
        async for event in client.events():
            if isinstance(event, StreamEnded):
                break
    await picker.at_rest()


async def test_memory_bounds_what_comes_of_a_message_too(tmp_path: Path) -> None:
    async with served_picker(tmp_path, ext_proc={"body_memory": 2_000_000}) as picker:
        await picker.serving(POD)
        async with client_of(picker.address) as client:
            stream = client.open()
            client.connection.send_data(stream, struct.pack(">BL", 0, 30_000_000))
            status = b""
            for _ in range(40):
                client.connection.send_data(stream, bytes(16_000))
            client.flush()
            sent = 40
            async for event in client.events():
                if isinstance(event, WindowUpdated) and sent < 400:
                    for _ in range(30):
                        client.connection.send_data(stream, bytes(16_000))
                    sent += 30
                    client.flush()
                if isinstance(event, TrailersReceived | ResponseReceived):
                    status = {_bytes(name): _bytes(value) for name, value in event.headers}.get(b"grpc-status", b"")
                if isinstance(event, StreamReset | StreamEnded):
                    break
            assert status == b"8"
        await picker.at_rest()
