"""Connections to pickers: TLS, and pickers that hang."""

import asyncio
from contextlib import suppress

import pytest

from controller.bundle import PickerTls
from controller.extproc.encoding import encode_part
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import HeadersPart, Phase
from controller.relay.errors import PickerFailed
from controller.relay.grpc import Answers
from controller.relay.pickers import Patience, Pickers, Place
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
