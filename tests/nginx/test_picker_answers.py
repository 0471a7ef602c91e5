"""What the picker answers, reaches the client or steers nginx. A fake picker stands in for the real one."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from controller.picker.explain import LARGEST
from tests.nginx.gateway import Gateway, run_gateway
from tests.nginx.resources import header, pool, request_headers, route, rule, to_pool
from tests.nginx.servers import Answer, Backend, Request, connect, nobody, pick, reset, response, serve, serve_picks

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Picks:
    """How picks are answered, and those that came."""

    answer: Answer = reset
    asked: list[Request] = field(default_factory=list)

    def give(self, raw: bytes) -> None:
        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(raw)

        self.answer = answer

    def choose(self, *addresses: str | None) -> None:
        """Picks these in turn, by how many were tried before; None drops the connection."""

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            tried = len([item for value in request.values("x-infergate-tried") for item in value.split(";") if item])
            address = addresses[min(tried, len(addresses) - 1)]
            if address is None:
                writer.close()
            else:
                writer.write(pick(request, address))

        self.answer = answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx) -> AsyncIterator[Gateway]:
    async with run_gateway(root, nginx, picker=()) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway) -> AsyncIterator[Backend]:
    """Serves the pools `open` and `closed`, at /open and /closed."""
    async with serve() as pod:
        await gateway.apply(
            "routes.yaml",
            pool("open", pod.address, mode="FailOpen"),
            pool("closed", pod.address),
            route("open", rule(to_pool("open"), path="/open")),
            route("closed", rule(to_pool("closed"), path="/closed")),
        )
        yield pod


@pytest_asyncio.fixture(loop_scope="module")
async def picks(gateway: Gateway, pod: Backend) -> AsyncIterator[Picks]:
    found = Picks()
    found.choose(pod.address)
    socket = gateway.state.root / "run/picker.sock"
    async with serve_picks(socket, lambda request, writer: found.answer(request, writer)) as server:
        found.asked = server.requests
        yield found


@pytest.fixture
def dead() -> Iterator[tuple[str, ...]]:
    with nobody() as one, nobody() as two, nobody() as three:
        yield one, two, three


async def test_picker_is_told_pool_place_and_id_once_each(http: httpx.AsyncClient, picks: Picks) -> None:
    await http.post("/open/v1?x=1", content=b"prompt", headers={"X-Request-Id": "mine"})
    (asked,) = picks.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/open/v1?x=1", b"prompt")
    assert asked.values("x-infergate-pool") == ["default/open"]
    assert [len(asked.values(name)) for name in ("x-infergate-then", "x-infergate-request")] == [1, 1]
    assert asked.values("x-request-id") == ["mine"]


@pytest.mark.parametrize("path", ["/open", "/closed"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 501, 502, 503, 504])
async def test_refusal_reaches_the_client_as_it_is(
    http: httpx.AsyncClient, picks: Picks, pod: Backend, status: int, path: str
) -> None:
    before = len(pod.requests)
    body = json.dumps({"error": {"message": "no", "code": f"why-{status}"}}).encode()
    picks.give(response(body, "Content-Type: application/json", "Retry-After: 7", "X-Why: x", status=f"{status} No"))
    answer = await http.post(path, content=b"prompt")
    assert (answer.status_code, answer.content) == (status, body)
    assert [answer.headers[name] for name in ("content-type", "retry-after", "x-why")] == ["application/json", "7", "x"]
    assert (len(picks.asked), len(pod.requests)) == (1, before)


async def test_longest_explanation_of_a_pick_reaches_the_client(
    http: httpx.AsyncClient, picks: Picks, pod: Backend
) -> None:
    why = "x" * LARGEST

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        end = f"\r\nX-Infergate-Explain: {why}\r\n\r\n".encode()
        writer.write(pick(request, pod.address).replace(b"\r\n\r\n", end))

    picks.answer = answer
    assert (await http.post("/closed", content=b"prompt")).headers["x-infergate-explain"] == why


async def test_explanation_outlives_the_picker(http: httpx.AsyncClient, picks: Picks, dead: tuple[str, ...]) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.values("x-infergate-tried"):
            writer.close()
            return
        writer.write(pick(request, dead[0]).replace(b"\r\n\r\n", b"\r\nX-Infergate-Explain: why\r\n\r\n"))

    picks.answer = answer
    answered = await http.post("/closed", content=b"prompt")
    assert (answered.status_code, answered.headers["x-infergate-explain"]) == (503, "why")


async def test_wait_in_the_pickers_queue_is_no_failure(http: httpx.AsyncClient, picks: Picks, pod: Backend) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        waiting.set()
        # Longer than the time in which a connection must be there.
        await asyncio.wait_for(go_on.wait(), 15)
        writer.write(pick(request, pod.address))

    picks.answer = answer
    asking = asyncio.create_task(http.post("/closed", content=b"prompt"))
    await asyncio.wait_for(waiting.wait(), 15)
    asyncio.get_running_loop().call_later(1.5, go_on.set)
    assert (await asking).status_code == 200


async def test_client_that_leaves_the_queue_is_seen_by_the_picker(gateway: Gateway, picks: Picks, pod: Backend) -> None:
    left = asyncio.Event()
    waiting = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        waiting.set()
        await request.hung_up()
        left.set()

    picks.answer = answer
    before = len(pod.requests)
    async with connect(gateway.port) as (_, writer):
        writer.write(b"POST /closed HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        await asyncio.wait_for(waiting.wait(), 15)
    await asyncio.wait_for(left.wait(), 2)
    assert len(pod.requests) == before


async def test_body_reaches_picker_and_pod_on_each_try(
    http: httpx.AsyncClient, picks: Picks, pod: Backend, dead: tuple[str, ...]
) -> None:
    picks.choose(*dead[:2], pod.address)
    body = bytes(range(256)) * 2000
    answer = await http.post("/closed", content=body)
    assert (answer.status_code, answer.json()["size"]) == (200, len(body))
    assert [asked.body for asked in picks.asked] == [body] * 3
    tried = picks.asked[-1].values("x-infergate-tried")[0]
    assert [item.partition("=")[0] for item in tried.split(";") if item] == list(dead[:2])


async def test_endpoint_that_is_not_in_the_loaded_file_is_served(http: httpx.AsyncClient, picks: Picks) -> None:
    async with serve(name="late") as late:
        picks.choose(late.address)
        assert (await http.get("/closed")).json()["server"] == "late"


@pytest_asyncio.fixture(loop_scope="module")
async def long_way(gateway: Gateway, pod: Backend, dead: tuple[str, ...]) -> AsyncIterator[None]:
    """Routes on which each choice that can be a jump of its own is one."""
    rules = {
        name: rule(
            to_pool(name, weight=1, filters=[request_headers(set=[header("X-A", "b")])]),
            to_pool(name, weight=1),
            matches=[{"path": {"value": f"/{name}"}, "headers": [header("X-Way", "long")]}],
        )
        for name in ("long-open", "long-closed", "long-dead")
    }
    await gateway.apply(
        "long.yaml",
        pool("long-open", pod.address, mode="FailOpen"),
        pool("long-closed", pod.address),
        pool("long-dead", *dead, mode="FailOpen"),
        *(route(name, each) for name, each in rules.items()),
    )
    yield
    await gateway.apply("long.yaml")


@pytest.mark.usefixtures("long_way")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/long-open", 200, None),
        ("/long-closed", 503, "picker_unavailable"),
        ("/long-dead", 502, "backend_unavailable"),
    ],
)
@pytest.mark.parametrize("tries", [0, 1, 2, 3])
async def test_longest_way_through_nginx_ends_in_an_answer_of_ours(
    http: httpx.AsyncClient, picks: Picks, dead: tuple[str, ...], path: str, status: int, code: str | None, tries: int
) -> None:
    picks.choose(*dead[:tries], None)
    answer = await http.post(path, content=b"prompt", headers={"X-Way": "long"})
    assert answer.status_code == status
    assert answer.json().get("error", {}).get("code") == code


@pytest.mark.usefixtures("long_way")
async def test_refusal_after_two_retries_on_the_longest_way_reaches_the_client(
    http: httpx.AsyncClient, picks: Picks, dead: tuple[str, ...]
) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        tried = request.values("x-infergate-tried")[0].count(";") if request.values("x-infergate-tried") else 0
        refusal = response(b'{"error":{}}', "Content-Type: application/json", status="502 Bad Gateway")
        writer.write(refusal if tried == 3 else pick(request, dead[tried]))

    picks.answer = answer
    answered = await http.post("/long-closed", content=b"prompt", headers={"X-Way": "long"})
    assert (answered.status_code, answered.content, len(picks.asked)) == (502, b'{"error":{}}', 4)


async def test_picker_that_is_not_there_is_fail_close_and_fail_open(http: httpx.AsyncClient, pod: Backend) -> None:
    closed = await http.post("/closed", content=b"prompt")
    opened = await http.post("/open", content=b"prompt")
    assert (closed.status_code, closed.json()["error"]["code"]) == (503, "picker_unavailable")
    assert (opened.status_code, opened.json()["size"]) == (200, len(b"prompt"))
