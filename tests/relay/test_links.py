"""Connections to one picker: how many there are, and who waits for a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from controller.extproc.encoding import encode_part
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import HeadersPart, Phase
from controller.relay import calling
from controller.relay.errors import PickerFailed
from controller.relay.grpc import Answers, Call
from controller.relay.links import SPARE, Link
from controller.relay.watching import Patience, Place
from tests.nginx.ext_proc import Picker, Stage, picks, serve_ext_proc

HEAD = HeadersPart(Phase.REQUEST, ((":method", b"GET"), (":path", b"/")), end_of_stream=True)
PATIENCE = Patience(connect=10.0)
SECONDS = 10.0


@dataclass
class Bench:
    link: Link
    picker: Picker
    calls: list[tuple[Call, Answers]] = field(default_factory=list)

    async def ask(self) -> None:
        """Open a stream that is answered and stays."""
        answers = Answers()
        call = await self.link.call(answers)
        call.send(encode_part(HEAD, opens=True))
        try:
            assert await answers.receive()
        except StreamEnded as problem:
            if not problem.is_untouched:
                raise
            # A server of gRPC counts a stream for a moment after its end.
            await self.ask()
        else:
            self.calls.append((call, answers))

    async def ask_at_once(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(self.ask() for _ in range(count)))


@asynccontextmanager
async def _bench(most: int, *, connections: int = 8) -> AsyncIterator[Bench]:
    """A link to a picker that takes so many streams on a connection."""

    async def play(stage: Stage) -> None:
        await stage.receive()
        await stage.send(picks("10.0.0.1:80"))
        await stage.receive()

    async with serve_ext_proc(play, tls=False, most_streams=most) as picker:
        bench = Bench(Link(Place(picker.address, "p", None), PATIENCE, most=connections), picker)
        try:
            yield bench
        finally:
            bench.link.close()


async def test_streams_beyond_what_a_connection_takes_are_on_others() -> None:
    async with _bench(10) as bench:
        await bench.ask_at_once(35)
        assert (len(bench.picker.peers), bench.picker.open, bench.link.streams) == (4, 35, 35)


async def test_requests_one_after_the_other_are_on_one_connection() -> None:
    async with _bench(2) as bench:
        for _ in range(20):
            await bench.ask_at_once(1)
            bench.calls.pop()[0].cancel()
        assert len(bench.picker.peers) == 1


async def test_those_beyond_all_connections_wait_for_a_stream() -> None:
    async with _bench(3, connections=2) as bench:
        await bench.ask_at_once(6)
        late = [asyncio.create_task(bench.ask()) for _ in range(4)]
        done, _ = await asyncio.wait(late, timeout=0.2)
        assert not done
        # One that goes away takes nobody's turn.
        late[0].cancel()
        for call, _ in bench.calls[3:]:
            call.done()
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*late[1:])
        assert (len(bench.picker.peers), bench.link.streams) == (2, 6)


async def test_connections_that_are_needed_no_more_end() -> None:
    async with _bench(1) as bench:
        await bench.ask_at_once(3)
        now = asyncio.get_running_loop().time()
        bench.link.sweep(now + 10)
        bench.calls[2][0].cancel()
        bench.link.sweep(now + 10 + SPARE - 0.1)
        assert (bench.link.connections, bench.link.streams) == (3, 2)
        bench.link.sweep(now + 10 + SPARE)
        assert (bench.link.connections, bench.link.streams) == (2, 2)
        for call, _ in bench.calls[:2]:
            call.cancel()
        bench.link.sweep(now + 100)
        assert bench.link.connections == 1
        await bench.ask_at_once(1)


async def test_requests_wait_where_another_connection_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = calling.connected
    async with _bench(2) as bench:
        await bench.ask_at_once(2)

        async def refused(place: Place, patience: Patience) -> object:
            raise PickerFailed("cannot be reached: no more connections")

        monkeypatch.setattr(calling, "connected", refused)
        late = asyncio.create_task(bench.ask())
        done, _ = await asyncio.wait([late], timeout=0.3)
        assert not done
        monkeypatch.setattr(calling, "connected", made)
        async with asyncio.timeout(SECONDS):
            await late
        assert len(bench.picker.peers) == 2
