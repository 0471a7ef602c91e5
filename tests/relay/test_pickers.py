"""Connections to pickers: TLS, and pickers that hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from controller.extproc.encoding import encode_part
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import HeadersPart, Phase
from controller.pools import PickerTls
from controller.relay.errors import Fault, PickerFailed
from controller.relay.grpc import Answers
from controller.relay.pickers import Pickers
from controller.relay.watching import Patience, Place
from tests.nginx.certificates import certificate
from tests.nginx.ext_proc import Stage, picks, serve_ext_proc

HEAD = HeadersPart(Phase.REQUEST, ((":method", b"GET"), (":path", b"/")), end_of_stream=True)

PATIENCE = Patience(connect=10.0)


async def _answer(stage: Stage) -> None:
    await stage.receive()
    await stage.send(picks("10.0.0.1:80"))


async def _ask(place: Place, patience: Patience = PATIENCE) -> bytes | None:
    pickers = Pickers(patience)
    try:
        async with asyncio.timeout(10):
            answers = Answers()
            call = await pickers.call([place], answers)
            call.send(encode_part(HEAD, opens=True))
            return await answers.receive()
    finally:
        pickers.close()


@pytest.mark.parametrize("name", ["picker", ""])
async def test_certificate_is_not_verified_without_an_authority(name: str) -> None:
    chain, key = certificate("picker")
    async with serve_ext_proc(_answer, certificate=(chain, key)) as picker:
        assert await _ask(Place(picker.address, "p", PickerTls(server_name=name)))


async def test_certificate_is_verified_with_an_authority() -> None:
    chain, key = certificate("picker")
    async with serve_ext_proc(_answer, certificate=(chain, key)) as picker:
        assert await _ask(Place(picker.address, "p", PickerTls(ca=chain.decode(), server_name="picker")))


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate"])
async def test_certificate_that_does_not_verify_is_no_picker(wrong: str) -> None:
    chain, key = certificate("picker")
    ca = {"authority": certificate("picker")[0].decode(), "name": chain.decode(), "no certificate": "text"}[wrong]
    name = "other" if wrong == "name" else "picker"
    async with serve_ext_proc(_answer, certificate=(chain, key)) as picker:
        with pytest.raises(PickerFailed):
            await _ask(Place(picker.address, "p", PickerTls(ca=ca, server_name=name)))
    assert not picker.stages


async def test_plain_text_where_tls_is_spoken_is_no_picker() -> None:
    async with serve_ext_proc(_answer) as picker:
        with pytest.raises(PickerFailed):
            await _ask(Place(picker.address, "p", None))


async def test_picker_that_hangs_is_given_up() -> None:
    left = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"\0\0\0\x04\0\0\0\0\0")  # its settings, and nothing after
            while await reader.read(10_000):
                pass
        writer.transport.abort()
        left.set()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        place = Place(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "p", None)
        with pytest.raises(StreamEnded, match="does not answer"):
            await _ask(place, Patience(silence=0.1, pong=0.1, check=0.2))
        async with asyncio.timeout(10):
            await left.wait()


@pytest.mark.parametrize("health", ["unknown", "told", "owed"])
async def test_picker_that_lets_requests_wait_is_asked_as_servers_of_grpc_allow(health: str) -> None:
    chosen, never = asyncio.Event(), asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.receive()
        await chosen.wait()
        await stage.send(picks("10.0.0.1:80"))

    serving = serve_ext_proc(
        play, tls=False, health=None if health == "unknown" else 1, is_well=never if health == "owed" else None
    )
    async with serving as picker:
        pickers, answers = Pickers(Patience(connect=0.5, silence=0.05, pong=0.1, check=60.0)), Answers()
        try:
            call = await pickers.call([Place(picker.address, "p", None)], answers)
            call.send(encode_part(HEAD, opens=True))
            # A ping in each silence would have the connection closed at the fourth. A health that is owed is waited
            # for first.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5 if health == "owed" else 1.0):
                    await answers.receive()
            chosen.set()
            async with asyncio.timeout(10):
                assert await answers.receive()
        finally:
            never.set()
            pickers.close()


@pytest.mark.parametrize("health", [None, 1])
async def test_picker_that_is_cut_off_is_given_up(health: int | None) -> None:
    async def play(stage: Stage) -> None:
        await stage.receive()
        await stage.send(picks("10.0.0.1:80"))
        await stage.receive()

    async with serve_ext_proc(play, tls=False, health=health) as picker, _line_to(picker.address) as (address, cut):
        pickers, answers = Pickers(Patience(silence=0.1, pong=0.2, check=0.2)), Answers()
        try:
            async with asyncio.timeout(10):
                call = await pickers.call([Place(address, "p", None)], answers)
                call.send(encode_part(HEAD, opens=True))
                assert await answers.receive()
                cut.set()
                with pytest.raises(StreamEnded, match="does not answer"):
                    await answers.receive()
        finally:
            pickers.close()


async def test_pings_without_an_answer_on_a_stream_are_few() -> None:
    pings, left = 0, asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pings
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x03\0\0\0\x01")  # one stream at a time
            await reader.readexactly(24)
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == 6:
                    pings += 1
                    writer.write(b"\0\0\x08\x06\x01\0\0\0\0" + payload)
        writer.transport.abort()
        left.set()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    pickers, answers = Pickers(Patience(connect=0.5, silence=0.05, pong=0.2, check=60.0)), Answers()
    async with server:
        try:
            await pickers.call([Place(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "p", None)], answers)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await answers.receive()
        finally:
            pickers.close()
        async with asyncio.timeout(10):
            await left.wait()
    assert pings == 2


async def test_wait_for_a_stream_has_an_end() -> None:
    left = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"\0\0\x06\x04\0\0\0\0\0" + b"\0\x03\0\0\0\x01")  # one stream at a time
            while await reader.read(10_000):
                pass
        writer.transport.abort()
        left.set()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server, asyncio.timeout(10), serve_ext_proc(_answer, tls=False) as free:
        full = Place(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "p", None)
        pickers = Pickers(Patience(connect=5.0, answer=0.5, silence=60.0, check=60.0), most=1)
        try:
            await pickers.call([full], Answers())
            with pytest.raises(PickerFailed, match="no more streams") as problem:
                await pickers.call([full], Answers())
            assert problem.value.fault is Fault.LATE
            await pickers.call([full, Place(free.address, "p", None)], Answers())
            assert [len(links) and links[0].streams for links in pickers.by_address().values()].count(1) == 2
        finally:
            pickers.close()
        await left.wait()


@asynccontextmanager
async def _line_to(address: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An address that leads to another, until the event: then nothing passes, and nobody hears of it."""
    cut = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if not cut.is_set():
                    writer.write(data)
        writer.close()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*address.rsplit(":", 1))
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
