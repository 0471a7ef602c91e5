"""Rules that try a Service again."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, header, response_headers, rewrite, route, rule, service, to_service
from tests.nginx.servers import Backend, Request, nobody, reset, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

BODY = bytes(range(256)) * 2000
CHANGES = [
    response_headers(set=[header("X-Out", "a")]),
    rewrite(hostname="inner.example", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}),
]
RULES: dict[str, Json] = {
    "codes": {"retry": {"codes": [500, 503], "attempts": 2}},
    "many": {"retry": {"codes": [500], "attempts": 100}},
    "connection": {"retry": {"attempts": 2}},
    "pause": {"retry": {"codes": [500], "attempts": 2, "backoff": "200ms"}},
    "hurry": {"retry": {"codes": [500], "attempts": 5, "backoff": "300ms"}, "timeouts": {"request": "500ms"}},
    "silent": {"retry": {"attempts": 2}, "timeouts": {"request": "10s", "backendRequest": "200ms"}},
    "changed": {"retry": {"codes": [500], "attempts": 2}, "filters": CHANGES},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    """Fails each request so often as its query says, in the way that its query says, and then answers 200."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        fault, _, count = request.target.partition("?")[2].partition("=")
        if len(serving.requests) > int(count):
            writer.write(response(b"ok"))
        elif fault == "reset":
            await reset(request, writer)
        elif fault == "silence":
            await request.hung_up()
        else:
            writer.write(response(b"own", "X-Own: b", status=f"{fault} Broken"))

    with nobody() as dead:
        async with serve(answer) as serving:
            await gateway.apply(
                "routes.yaml",
                service("backend", serving.address),
                service("dead", dead),
                service("half", dead, serving.address),
                route(
                    "all",
                    *(rule(to_service("backend"), path=f"/{name}", **more) for name, more in RULES.items()),
                    rule(to_service("dead"), path="/dead", **RULES["codes"]),
                    rule(to_service("half"), path="/half", **RULES["connection"]),
                    rule(to_service("backend"), to_service("backend"), path="/weighed", **RULES["many"]),
                ),
            )
            yield serving


@pytest.fixture(autouse=True)
def _afresh(backend: Backend) -> None:
    backend.requests.clear()


@pytest.mark.parametrize(
    ("path", "status", "tries"),
    [
        ("/codes/a%20b?500=2", 200, 3),
        ("/codes?503=1", 200, 2),
        ("/codes?500=3", 500, 3),
        ("/codes?501=2", 501, 1),
        ("/codes?404=2", 404, 1),
        ("/codes?reset=2", 200, 3),
        ("/connection?reset=1", 200, 2),
        ("/connection?reset=9", 502, 3),
        ("/connection?500=1", 500, 1),
        ("/connection?502=1", 502, 1),
        ("/many?500=6", 200, 7),
        ("/many?500=7", 500, 7),
        ("/weighed?500=6", 200, 7),
        ("/weighed?reset=9", 502, 7),
        ("/silent?silence=2", 200, 3),
        ("/silent?silence=3", 504, 3),
    ],
)
async def test_failure_is_tried_again(
    http: httpx.AsyncClient, backend: Backend, path: str, status: int, tries: int
) -> None:
    answer = await http.post(path, content=BODY)
    assert (answer.status_code, len(backend.requests)) == (status, tries)
    assert {(request.method, request.target, request.body) for request in backend.requests} == {("POST", path, BODY)}


async def test_last_failure_is_the_answer(http: httpx.AsyncClient) -> None:
    answer = await http.get("/codes?500=9")
    assert (answer.content, answer.headers["x-own"]) == (b"own", "b")


async def test_backoff_is_kept(http: httpx.AsyncClient, backend: Backend) -> None:
    begun = time.monotonic()
    assert (await http.get("/pause?500=2")).status_code == 200
    assert (len(backend.requests), time.monotonic() - begun >= 0.4) == (3, True)


async def test_request_timeout_ends_the_tries(http: httpx.AsyncClient, backend: Backend) -> None:
    begun = time.monotonic()
    answer = await http.get("/hurry?500=9")
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/json")
    assert len(backend.requests) == 2
    assert 0.4 < time.monotonic() - begun < 3


async def test_changes_of_the_rule_hold_for_each_try(http: httpx.AsyncClient, backend: Backend) -> None:
    answer = await http.get("/changed/a%20b?500=2")
    assert (answer.status_code, answer.headers.get_list("x-out")) == (200, ["a"])
    arrived = {(request.target, *request.values("host")) for request in backend.requests}
    assert arrived == {("/new/a%20b?500=2", "inner.example")}


async def test_backend_that_is_never_there_is_502_in_json(http: httpx.AsyncClient) -> None:
    answer = await http.get("/dead")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")


async def test_other_endpoint_is_a_try(http: httpx.AsyncClient) -> None:
    answers = [await http.post("/half?500=0", content=BODY) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
