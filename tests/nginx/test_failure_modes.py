"""What clients see when the picker dies, hangs, and comes back."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of, eventually, until
from tests.nginx.resources import Json, pool, route, rule, to_pool
from tests.nginx.servers import Backend, Request, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

BODY = b"p" * 20_000


@dataclass
class Streams:
    """Lets streams go on to their next event, all at once."""

    event: asyncio.Event = field(default_factory=asyncio.Event)

    def go_on(self) -> None:
        self.event.set()
        self.event = asyncio.Event()


STREAMS = Streams()


async def _answer(request: Request, writer: asyncio.StreamWriter) -> None:
    if request.target.endswith("/stream"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ")
        await writer.drain()
        await STREAMS.event.wait()
        writer.write(b"second")
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pods(gateway: Gateway) -> AsyncIterator[tuple[Backend, ...]]:
    """Three pods in the pools `open` and `closed`, at /open and /closed."""
    async with serve(_answer) as one, serve(_answer) as two, serve(_answer) as three:
        await gateway.apply("routes.yaml", *_routes(one.address, two.address, three.address))
        yield one, two, three


def _routes(*addresses: str) -> list[Json | list[Json]]:
    return [
        pool("open", *addresses, mode="FailOpen"),
        pool("closed", *addresses),
        route("open", rule(to_pool("open"), path="/open")),
        route("closed", rule(to_pool("closed"), path="/closed")),
    ]


@dataclass
class Load:
    """Answers that came back so far, by path and status, and those that make no sense."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)

    def statuses(self, path: str) -> set[int]:
        return {status for known, status in self.answers if known == path}

    def add(self, path: str, answer: httpx.Response) -> None:
        self.answers[path, answer.status_code] += 1
        if answer.status_code == 503:
            if answer.json()["error"]["code"] != "picker_unavailable":
                self.odd.append(answer.text)
        elif answer.content != BODY:
            self.odd.append(f"{answer.status_code} {answer.text[:200]}")


@asynccontextmanager
async def _load(gateway: Gateway) -> AsyncIterator[Load]:
    """Six clients that post one request after the other, until the end of the context."""
    load = Load()
    over = asyncio.Event()

    async def post(http: httpx.AsyncClient, path: str) -> None:
        while not over.is_set():
            load.add(path, await http.post(path, content=BODY))

    async with client_of(gateway) as http:
        clients = [asyncio.create_task(post(http, path)) for path in ["/open", "/closed"] * 3]
        try:
            yield load
        finally:
            over.set()
            await asyncio.gather(*clients)


def _signal_picker(gateway: Gateway, sign: signal.Signals = signal.SIGKILL) -> tuple[int, ...]:
    """Sends a signal to whatever picks and returns its process ids."""
    pids = gateway.picker_pids()
    assert pids
    for pid in pids:
        os.kill(pid, sign)
    return pids


async def _is_back(gateway: Gateway) -> bool:
    async with client_of(gateway) as http:
        return (await http.post("/closed", content=BODY)).status_code == 200


async def test_picker_killed_under_load_is_503_or_200_and_nothing_else(
    gateway: Gateway, pods: tuple[Backend, ...]
) -> None:
    async with _load(gateway) as load:
        await until(lambda: load.answers["/open", 200] > 20 and load.answers["/closed", 200] > 20)
        before = len(gateway.log_lines())
        first = _signal_picker(gateway)
        await until(lambda: load.answers["/closed", 503] > 5)
        await until(lambda: gateway.picks_anew(first))
        await eventually(lambda: _is_back(gateway))
        served = load.answers["/closed", 200]
        await until(lambda: load.answers["/closed", 200] > served + 20)
    assert load.odd == []
    assert load.statuses("/open") == {200}
    assert load.statuses("/closed") == {200, 503}
    opened = [line for line in gateway.log_lines()[before:] if b'"mode":"fail_open"' in line]
    assert all(any(pod.address.encode() in line for line in opened) for pod in pods)
    await gateway.idle()


async def test_stream_goes_on_when_the_picker_dies(gateway: Gateway, pods: tuple[Backend, ...]) -> None:
    before = sum(len(pod.requests) for pod in pods)
    async with client_of(gateway) as http:
        streams = [asyncio.create_task(http.post(f"/{mode}/stream")) for mode in ("open", "closed") for _ in range(20)]
        await until(lambda: sum(len(pod.requests) for pod in pods) == before + 40)
        first = _signal_picker(gateway)
        await until(lambda: gateway.picks_anew(first))
        STREAMS.go_on()
        answers = await asyncio.gather(*streams)
    assert {answer.content for answer in answers} == {b"first second"}
    await eventually(lambda: _is_back(gateway))
    await gateway.idle()


async def test_picker_that_hangs_is_replaced_and_what_waited_is_answered(
    tmp_path: Path, nginx: Nginx, run: Run
) -> None:
    async with serve(_answer) as pod, run(tmp_path, nginx) as gateway, client_of(gateway) as http:
        await gateway.apply("routes.yaml", *_routes(pod.address))
        first = _signal_picker(gateway, signal.SIGSTOP)
        opened, closed = await asyncio.gather(http.post("/open", content=BODY), http.post("/closed", content=BODY))
        assert (opened.status_code, opened.content) == (200, BODY)
        assert (closed.status_code, closed.json()["error"]["code"]) == (503, "picker_unavailable")
        await until(lambda: gateway.picks_anew(first))
        await eventually(lambda: _is_back(gateway))


async def test_fail_close_says_when_to_come_back(gateway: Gateway, pods: tuple[Backend, ...]) -> None:
    _signal_picker(gateway)
    async with client_of(gateway) as http:
        answer = await http.post("/closed", content=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/json"
    await eventually(lambda: _is_back(gateway))
