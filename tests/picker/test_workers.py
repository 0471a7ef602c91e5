"""Which process is at the other end of a connection, and when it ends."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.picker import workers
from controller.picker.workers import NOBODY, Workers

WITHIN = 10.0
_CONNECTS_TWICE = """
import socket, sys
made = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for one in made:
    one.connect(sys.argv[1])
sys.stdin.read()
"""


class Server:
    """A Unix socket and what connects to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: asyncio.Queue[asyncio.BaseTransport] = asyncio.Queue()

    async def listen(self) -> asyncio.Server:
        made = self.made

        class Seen(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.put_nowait(transport)

        return await asyncio.get_running_loop().create_unix_server(Seen, self.path)

    async def connect(self) -> asyncio.subprocess.Process:
        """A process with two connections, which lives until it is killed."""
        arguments = (sys.executable, "-c", _CONNECTS_TWICE, str(self.path))
        return await asyncio.create_subprocess_exec(*arguments, stdin=asyncio.subprocess.PIPE)

    async def accepted(self) -> asyncio.BaseTransport:
        return await asyncio.wait_for(self.made.get(), WITHIN)


async def test_end_of_a_process_is_told_once_however_many_connections_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "TELLS_WITHIN", 0.0)  # a constant of the module, not an argument
    ended: asyncio.Queue[int] = asyncio.Queue()
    met = Workers(ended=ended.put_nowait)
    server = Server(tmp_path / "s")
    async with await server.listen():
        first, second = await server.connect(), await server.connect()
        found = [met.at(await server.accepted()) for _ in range(4)]
        assert sorted(found) == [1, 1, 2, 2]
        gone, left = (first, second) if found[0] == 1 else (second, first)
        gone.kill()
        told = await asyncio.wait_for(ended.get(), WITHIN)
        left.kill()
        assert {told, await asyncio.wait_for(ended.get(), WITHIN)} == {1, 2}
        await asyncio.gather(first.wait(), second.wait())
    assert (len(met), ended.qsize()) == (0, 0)


async def test_process_that_ended_before_it_was_met_is_nobody(tmp_path: Path) -> None:
    met = Workers(ended=lambda worker: None)
    server = Server(tmp_path / "s")
    async with await server.listen():
        process = await server.connect()
        transport = await server.accepted()
        process.kill()
        await process.wait()
        assert met.at(transport) == NOBODY


@pytest.mark.parametrize("connection", [lambda: None, lambda: socket.socket(socket.AF_INET)])
def test_connection_that_is_no_unix_socket_is_nobodys(connection: Callable[[], socket.socket | None]) -> None:
    class Wire(asyncio.BaseTransport):
        pass

    made = connection()
    assert Workers(ended=lambda worker: None).at(Wire({"socket": made})) == NOBODY
    if made is not None:
        made.close()
