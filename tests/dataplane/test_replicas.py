"""What an instance and several replicas of the control plane make of each other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.agent.control_plane import Access, ControlPlane
from controller.bundle import Bundle
from controller.dataplane.pki import make_ca
from controller.dataplane.publications import Publications
from controller.errors import ControlPlaneFailed
from controller.pools import pools_of
from controller.wire import Statement

from . import control_plane

_SAID = Statement("a", "a")


@pytest.fixture
def first(tmp_path: Path) -> control_plane.ControlPlane:
    return control_plane.ControlPlane(tmp_path)


@asynccontextmanager
async def _line(plane: control_plane.ControlPlane, *addresses: str) -> AsyncIterator[ControlPlane]:
    """To replicas at these addresses, all called localhost."""
    token = plane.directory / "token"
    token.write_text("good")

    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("localhost", plane.port)
        return addresses

    line = ControlPlane(Access(plane.url, "shop/edge", token, plane.ca_file), resolve=resolve)
    try:
        yield line
    finally:
        await line.close()


async def test_every_replica_is_told(first: control_plane.ControlPlane) -> None:
    async with first.serving() as one:
        other = replace(first, address="127.0.0.2")
        async with other.serving() as two, _line(first, "127.0.0.1", "127.0.0.2") as line:
            await line.tell(_SAID)
            assert [each.live for server in (one, two) for each in server.reports("shop/edge")] == ["a", "a"]


async def test_replica_that_is_gone_keeps_none_from_being_told(first: control_plane.ControlPlane) -> None:
    async with first.serving() as server, _line(first, "127.0.0.1", "127.0.0.2") as line:
        await line.tell(_SAID)
        assert [each.live for each in server.reports("shop/edge")] == ["a"]


async def test_replica_that_hangs_keeps_none_from_being_told(first: control_plane.ControlPlane) -> None:
    async with first.serving() as server, _line(first, "127.0.0.1", "127.0.0.2") as line:

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await heard.wait()
            writer.close()

        heard = asyncio.Event()
        async with await asyncio.start_server(hang, "127.0.0.2", first.port):
            telling = asyncio.create_task(line.tell(_SAID))
            async with asyncio.timeout(5):
                while not server.reports("shop/edge"):  # noqa: ASYNC110 - a request of another task
                    await asyncio.sleep(0.01)
            assert not telling.done()
            heard.set()
            await telling


async def test_report_that_nobody_takes_fails(first: control_plane.ControlPlane) -> None:
    async with first.serving():
        pass
    async with _line(first, "127.0.0.1") as line:
        with pytest.raises(ControlPlaneFailed, match="does not answer"):
            await line.tell(_SAID)


async def test_certificate_of_another_name_is_not_trusted(first: control_plane.ControlPlane) -> None:
    async with first.serving() as server, _line(first, "127.0.0.1") as line:
        server.use(first.certificate("elsewhere"))
        for ask in (line.tell(_SAID), line.fetch(version="", etag="", wait=0)):
            with pytest.raises(ControlPlaneFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await ask
        assert server.reports("shop/edge") == ()


async def test_certificate_of_another_authority_is_not_trusted(first: control_plane.ControlPlane) -> None:
    async with first.serving(), _line(first, "127.0.0.1") as line:
        first.ca_file.write_bytes(make_ca(now=datetime.now(UTC)).certificate)
        with pytest.raises(ControlPlaneFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await line.tell(_SAID)


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff"])
async def test_authority_that_cannot_be_read_is_named(content: bytes | None, first: control_plane.ControlPlane) -> None:
    async with first.serving(), _line(first, "127.0.0.1") as line:
        first.ca_file.unlink()
        if content is not None:
            first.ca_file.write_bytes(content)
        with pytest.raises(ControlPlaneFailed, match=r"ca\.crt holds no certificates"):
            await line.tell(_SAID)
        first.ca_file.write_bytes(first.ca.certificate)
        await line.tell(_SAID)


async def test_delivery_for_another_gateway_is_refused(first: control_plane.ControlPlane) -> None:
    async with first.serving() as server, _line(first, "127.0.0.1") as line:
        server._publications.newer = _of_another  # type: ignore[method-assign] # a server that is confused
        with pytest.raises(ControlPlaneFailed, match="for bank/edge"):
            await line.fetch(version="", etag="", wait=0)


async def _of_another(gateway: str, **asked: object) -> bytes:
    publications = Publications()
    publications.publish("bank/edge", Bundle("bank/edge", "a", (), pools_of(())))
    return await publications.newer("bank/edge", version="", etag="", wait=0) or b""
