"""Many requests, large ones and other protocols, through the relay."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from controller.agent import state as places
from controller.extproc.decoding import decode_part
from controller.extproc.encoding import encode_answer
from controller.extproc.grpc import prefix
from controller.extproc.http2.served import Stream
from controller.extproc.http2.server import Connection
from controller.extproc.messages import METHOD, BodyAnswer, BodyPart, HeadersAnswer, Immediate, Phase
from controller.relay.config import RelaySettings
from tests.nginx.ext_proc import Stage, as_the_field_does, picks, serve_ext_proc
from tests.nginx.gateway import client_of, eventually, until
from tests.nginx.http2 import serve_http2
from tests.nginx.resources import picked_pool, pool, route, rule, to_pool
from tests.nginx.scene import LATE, Scene
from tests.nginx.servers import Request, response
from tests.ports import free_port, free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

STREAMS, WAVE = 2000, 100
LARGE, SIZE = 100, 20_000_000
"""Requests in flight, and the bytes of each: 2 GB, most of them in files."""
MESSAGES, MESSAGE = 40, 15_000_000
"""Messages of a picker at the same time, and the bytes of each."""
MOST_HELD: Final = 400_000_000
"""Bytes of memory of the whole relay, interpreter and modules included."""


@pytest.fixture(scope="module")
def relay_options() -> Sequence[str]:
    return ("--answer-timeout", "60")


async def _as_it_comes(stage: Stage, endpoint: str) -> None:
    """Answers each part at once, and keeps nothing."""
    while (part := await stage.receive()) is not None:
        match part:
            case BodyPart():
                await stage.send(BodyAnswer(part.phase, part.chunk, is_streamed=True, end_of_stream=part.end_of_stream))
            case _ if part.phase is Phase.REQUEST:
                await stage.send(picks(endpoint))
            case _:
                await stage.send(HeadersAnswer(Phase.RESPONSE))


@pytest.mark.parametrize(("most", "connections"), [(None, 1), (1024, 2), (100, 20)])
async def test_two_thousand_long_streams_to_one_picker(scene: Scene, most: int | None, connections: int) -> None:
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        arrived.release()
        await go_on.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
        try:
            writer.write(b"POST /v1/x HTTP/1.1\r\nHost: many.test\r\nContent-Length: 2\r\n\r\n{}")
            return await reader.readuntil(b"last\r\n0\r\n\r\n")
        finally:
            writer.transport.abort()

    async def play(stage: Stage) -> None:
        await _as_it_comes(stage, scene.a.address)

    scene.answer = answer
    async with asyncio.timeout(120), serve_ext_proc(play, most_streams=most) as picker:
        many = picked_pool("many", scene.a.address, pickers=[picker.address])
        await scene.gateway.apply("many.yaml", *many, route("many", rule(to_pool("many")), hostnames=["many.test"]))
        asking = []
        for _ in range(STREAMS // WAVE):
            # More at once would overflow the queue of connections that the endpoint has not accepted yet.
            asking += [asyncio.create_task(ask()) for _ in range(WAVE)]
            for _ in range(WAVE):
                await arrived.acquire()
        at_once = picker.open
        go_on.set()
        answers = Counter(got.partition(b"\r\n")[0] for got in await asyncio.gather(*asking))
        await scene.gateway.apply("many.yaml")
    assert (answers, at_once, len(picker.peers)) == ({b"HTTP/1.1 200 OK": STREAMS}, STREAMS, connections)


class _Holds:
    """A picker that takes a whole request and says nothing until it is let go on. See `Call`.

    Not the picker of the scene: that one keeps every piece in objects of its own.
    """

    def __init__(self, stream: Stream, taken: "list[_Holds]", arrived: asyncio.Semaphore) -> None:
        self._stream = stream
        self._taken = taken
        self._arrived = arrived
        self.pieces = 0

    def message(self, data: bytes) -> None:
        part, _ = decode_part(data)
        if isinstance(part, BodyPart):
            self.pieces += 1
            if part.end_of_stream:
                self._taken.append(self)
                self._arrived.release()

    def choose(self, address: str) -> None:
        """It gave nothing back, so the relay has to have all of it."""
        for _ in range(self.pieces):
            self._stream.send(encode_answer(BodyAnswer(Phase.REQUEST)))
        self._stream.send(encode_answer(picks(address)))
        self._stream.end(0)

    def refuse(self) -> None:
        self._stream.send(encode_answer(Immediate(429)))
        self._stream.end(0)

    def holds(self, size: int) -> bool:
        return True

    def half_closed(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def gone(self) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True], ids=["chosen once", "chosen again"])
async def test_large_bodies_wait_outside_of_memory(scene: Scene, fails: bool) -> None:
    """Two are served in the end, and the others refused: to send all of them on would take as long again."""
    taken: list[_Holds] = []
    arrived = asyncio.Semaphore(0)
    connections: set[Connection] = set()
    methods = {METHOD.encode(): lambda stream: _Holds(stream, taken, arrived)}
    loop = asyncio.get_running_loop()
    picker = await loop.create_server(lambda: Connection(methods, connections), "127.0.0.1", 0)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        body = b"%d" % len(request.body)
        scene.a.requests.clear()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    scene.answer = answer
    place = f"127.0.0.1:{picker.sockets[0].getsockname()[1]}"
    dead = f"127.0.0.1:{free_port()}"
    made = picked_pool("slow", scene.a.address, dead, pickers=[place], tls=False)
    await scene.gateway.apply("slow.yaml", made, route("slow", rule(to_pool("slow")), hostnames=["slow.test"]))
    pid = scene.gateway.data_plane.relay_pid
    piece = bytes(250_000)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
        try:
            writer.write(b"POST /v1/x HTTP/1.1\r\nHost: slow.test\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(piece)):
                writer.write(piece)
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return head[9:12] + (await reader.readexactly(len(str(SIZE))) if head[9:12] == b"200" else b"")
        finally:
            writer.transport.abort()

    async with picker, asyncio.timeout(120):
        asking = [asyncio.create_task(ask()) for _ in range(LARGE)]
        for _ in range(LARGE):
            await arrived.acquire()
        most = _resident(pid)
        if fails:
            first = taken.copy()
            taken.clear()
            for each in first:
                each.choose(dead)
            for _ in range(LARGE):
                await arrived.acquire()
            most = max(most, _resident(pid))
        for each in taken[:2]:
            each.choose(scene.a.address)
            await asyncio.wait({task for task in asking if not task.done()}, return_when=asyncio.FIRST_COMPLETED)
        most = max(most, _resident(pid))
        for each in taken[2:]:
            each.refuse()
        answers = Counter(await asyncio.gather(*asking))
    await scene.gateway.apply("slow.yaml")
    assert answers == {b"200%d" % SIZE: 2, b"502" if fails else b"429": LARGE - 2}
    assert most < MOST_HELD


class _Replaces:
    """A picker that takes the place of a body by one large message. See `Call`."""

    def __init__(self, stream: Stream, arrived: "list[_Replaces]") -> None:
        self._stream = stream
        self._arrived = arrived

    def message(self, data: bytes) -> None:
        part, _ = decode_part(data)
        if isinstance(part, BodyPart) and part.end_of_stream:
            self._arrived.append(self)

    def begin(self, address: str, answer: bytes) -> None:
        """All of the large message but its last byte."""
        self._stream.send(encode_answer(picks(address)))
        self._stream.write(prefix(len(answer)))
        self._stream.write(memoryview(answer)[:-1])
        self._stream.go_on()

    @property
    def has_left(self) -> bool:
        return self._stream.is_drained

    def finish(self, answer: bytes) -> None:
        self._stream.write(answer[-1:])
        self._stream.end(0)
        self._stream.go_on()

    def holds(self, size: int) -> bool:
        return True

    def half_closed(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def gone(self) -> None:
        pass


async def test_large_messages_at_the_same_time(scene: Scene) -> None:
    """None of them is whole before as many came as are let come."""
    arrived: list[_Replaces] = []
    connections: set[Connection] = set()
    methods = {METHOD.encode(): lambda stream: _Replaces(stream, arrived)}
    picker = await asyncio.get_running_loop().create_server(lambda: Connection(methods, connections), "127.0.0.1", 0)
    body = bytes(MESSAGE)
    message = encode_answer(BodyAnswer(Phase.REQUEST, body, is_streamed=True, end_of_stream=True))

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        scene.a.requests.clear()
        writer.write(response(b"%d" % len(request.body)))

    scene.answer = answer
    place = f"127.0.0.1:{picker.sockets[0].getsockname()[1]}"
    made = picked_pool("large", scene.a.address, pickers=[place], tls=False)
    await scene.gateway.apply("large.yaml", made, route("large", rule(to_pool("large")), hostnames=["large.test"]))
    pid = scene.gateway.data_plane.relay_pid
    _forget_peak(pid)
    async with picker, asyncio.timeout(120), client_of(scene.gateway, timeout=120) as http:
        asking = [
            asyncio.create_task(http.post("/v1/x", content=b"{}", headers={"host": "large.test"}))
            for _ in range(MESSAGES)
        ]
        await until(lambda: len(arrived) == MESSAGES)
        for each in arrived:
            each.begin(scene.a.address, message)
        while arrived:
            await until(lambda: any(each.has_left for each in arrived))
            for each in [each for each in arrived if each.has_left]:
                arrived.remove(each)
                each.finish(message)
        answers = Counter((got.status_code, got.text) for got in await asyncio.gather(*asking))
    await scene.gateway.apply("large.yaml")
    assert answers == {(200, str(MESSAGE)): MESSAGES}
    assert _resident(pid, "VmHWM:") < MOST_HELD


def _forget_peak(pid: int | None) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _resident(pid: int | None, what: str = "VmRSS:") -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition(what)[2].split()[0]) * 1024


async def test_picker_that_lets_requests_wait_is_waited_for(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await asyncio.wait({asyncio.create_task(stage.context.read())}, timeout=LATE * 0.6)
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))

    scene.play = play
    assert (await scene.post()).status_code == 200


async def test_queues_of_pickers_end_before_the_relays_patience() -> None:
    # The reference picker lets a request wait for 60 s at most.
    assert RelaySettings.model_fields["answer_timeout"].default > 60


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
async def test_killed_picker_under_load(scene: Scene, mode: str) -> None:
    port = free_ports(1)[0]
    made = picked_pool("load", scene.a.address, scene.b.address, pickers=[f"127.0.0.1:{port}"], mode=mode)
    await scene.gateway.apply("load.yaml", made, route("load", rule(to_pool("load")), hostnames=["load.test"]))
    seen: Counter[int] = Counter()
    slowest = 0.0

    async def ask(http: httpx.AsyncClient) -> None:
        nonlocal slowest
        began = asyncio.get_running_loop().time()
        got = await http.post("/v1/x", content=b"x" * 20_000, headers={"host": "load.test"})
        seen[got.status_code] += 1
        slowest = max(slowest, asyncio.get_running_loop().time() - began)

    async def load(http: httpx.AsyncClient) -> None:
        while True:
            await ask(http)

    async def is_served() -> bool:
        async with client_of(scene.gateway) as http:
            return (await http.post("/v1/x", content=b"x", headers={"host": "load.test"})).status_code == 200

    async with client_of(scene.gateway) as http:
        async with serve_ext_proc(as_the_field_does(scene.a.address), address=f"127.0.0.1:{port}"):
            await eventually(is_served)
            asking = [asyncio.create_task(load(http)) for _ in range(8)]
            await until(lambda: seen[200] > 50)
            seen.clear()
        await until(lambda: sum(seen.values()) > 100)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    await scene.gateway.apply("load.yaml")
    assert set(seen) <= ({200} if mode == "FailOpen" else {200, 503})
    assert slowest < LATE + 3


@pytest.mark.parametrize("is_there", [True, False], ids=["picked", "failing open"])
async def test_pool_of_http2_is_spoken_to_in_it(scene: Scene, is_there: bool) -> None:
    async with serve_http2() as one, serve_http2() as two:
        async with serve_ext_proc(as_the_field_does(one, x_picked="yes")) as picker:
            place = picker.address if is_there else f"127.0.0.1:{free_ports(1)[0]}"
            made = picked_pool("two", one, two, pickers=[place], mode="FailOpen", protocol="kubernetes.io/h2c")
            await scene.gateway.apply("two.yaml", made, route("two", rule(to_pool("two")), hostnames=["two.test"]))
            async with client_of(scene.gateway) as http:
                answers = [
                    await http.post("/v1/x?y=z", content=b"x" * size, headers={"host": "two.test"})
                    for size in (1, 500_000, 3)
                ]
        await scene.gateway.apply("two.yaml")
    assert [(got.status_code, got.json()["size"]) for got in answers] == [(200, 1), (200, 500_000), (200, 3)]
    headers = dict(answers[0].json()["headers"])
    assert (headers[":path"], headers.get(":authority", headers.get("host"))) == ("/v1/x?y=z", "two.test")
    assert ("x-picked" in headers) is is_there
    assert "connection" not in headers


async def test_pool_of_http2_is_picked_by_the_built_in_picker(scene: Scene) -> None:
    async with serve_http2() as one:
        item, *slices = pool("two", one)
        item["spec"]["appProtocol"] = "kubernetes.io/h2c"
        await scene.gateway.apply(
            "two.yaml", [item, *slices], route("two", rule(to_pool("two")), hostnames=["two.test"])
        )
        async with client_of(scene.gateway) as http:
            got = await http.post("/v1/x", content=b"x" * 9, headers={"host": "two.test"})
        await scene.gateway.apply("two.yaml")
    assert (got.status_code, got.json()["size"]) == (200, 9)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/generate"]
)
async def test_every_api_passes(scene: Scene, path: str) -> None:
    got = await scene.http.post(path, content=b"{}", headers={"host": "close.test"})
    stage = await scene.stage()
    head = stage.parts[0][0]
    assert got.status_code == 200
    assert not isinstance(head, BodyPart)
    assert (":path", path.encode()) in head.headers  # type: ignore[union-attr]  # headers


async def test_access_log_tells_of_the_endpoint(scene: Scene) -> None:
    got = await scene.post()
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (line["pool"], line["mode"], line["endpoint"], line["tries"]) == (
        "default/failclose",
        "relayed",
        scene.a.address,
        1,
    )


async def test_built_in_picker_has_nothing_to_do_with_such_pools(scene: Scene) -> None:
    await scene.post()
    known = {item["name"] for item in (await scene.gateway.pools())["pools"]}
    assert not known & {"default/failclose", "default/failopen"}
    assert (await scene.gateway.metrics())["infergate_unknown_completions_total"] == 0


async def test_next_request_may_come_before_the_last_one_is_done(scene: Scene) -> None:
    reader, writer = await asyncio.open_unix_connection(str(scene.gateway.state.root / places.RELAY_SOCKET))
    request = (
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nx-infergate-pool: default/failclose\r\n"
        b"x-infergate-then: @then\r\nContent-Length: 3\r\n\r\nabc"
    )
    async with asyncio.timeout(10):
        for _ in range(50):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            await reader.readuntil(b"0\r\n\r\n")
    writer.transport.abort()


async def test_choice_is_restricted_by_what_nginx_says(scene: Scene) -> None:
    reader, writer = await asyncio.open_unix_connection(str(scene.gateway.state.root / places.RELAY_SOCKET))
    writer.write(
        b"GET /v1/x HTTP/1.1\r\nHost: x\r\nx-infergate-pool: default/failclose\r\n"
        b"x-gateway-destination-endpoint-subset: 10.0.0.1:80, 10.0.0.2:80\r\n\r\n"
    )
    async with asyncio.timeout(10):
        await reader.readuntil(b"0\r\n\r\n")
    writer.transport.abort()
    (_, metadata), *_ = (await scene.stage()).parts
    wanted = {"x-gateway-destination-endpoint-subset": ["10.0.0.1:80", "10.0.0.2:80"]}
    assert metadata == {"envoy.lb.subset_hint": wanted}
