"""Requests of one session stay on one endpoint."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from http.cookies import SimpleCookie

import httpx
import pytest
import pytest_asyncio

from controller.headers import session_id
from tests.nginx.calls import SERVICE, calls_to, serve_calls
from tests.nginx.gateway import Gateway
from tests.nginx.resources import (
    Json,
    call_route,
    call_rule,
    pool,
    response_headers,
    route,
    rule,
    service,
    to_pool,
    to_service,
)
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

IN_COOKIE: Json = {"sessionName": "at"}
IN_HEADER: Json = {"sessionName": "X-Session", "type": "Header"}
NOWHERE = "0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(gateway: Gateway) -> AsyncIterator[dict[str, Backend]]:
    async def name(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(request.server.encode(), "Set-Cookie: own=1", "X-Session: theirs"))

    async with AsyncExitStack() as stack:
        found = {one: await stack.enter_async_context(serve(name, name=one)) for one in ("a", "b", "c", "d", "e")}
        left, right = [found[one].address for one in "abc"], [found[one].address for one in "de"]
        kinds = {"service": to_service, "pool": to_pool}
        await gateway.apply(
            "routes.yaml",
            pool("left", *left),
            pool("right", *right),
            service("left", *left),
            service("right", *right),
            route(
                "sessions",
                *(
                    rule(*to, path=f"/{kind}/{path}", sessionPersistence=session)
                    for kind, to_one in kinds.items()
                    for path, to, session in (
                        ("cookie", [to_one("left")], IN_COOKIE),
                        ("header", [to_one("left")], IN_HEADER),
                        ("both", [to_one("left", weight=1), to_one("right", weight=1)], IN_COOKIE),
                        ("drained", [to_one("left", weight=1), to_one("right", weight=0)], IN_COOKIE),
                    )
                ),
                rule(to_service("left"), to_pool("right"), path="/mixed", sessionPersistence={}),
                rule(
                    to_service("left"),
                    path="/kept",
                    sessionPersistence={
                        "sessionName": "at",
                        "absoluteTimeout": "5m",
                        "cookieConfig": {"lifetimeType": "Permanent"},
                    },
                ),
                rule(
                    to_service("left"), path="/timed", sessionPersistence={"sessionName": "at", "absoluteTimeout": "1h"}
                ),
                rule(
                    to_pool("left"),
                    path="/changed",
                    filters=[response_headers(remove=["Set-Cookie"])],
                    sessionPersistence=IN_COOKIE,
                ),
                rule(
                    to_service("left"),
                    matches=[
                        {"path": {"type": "PathPrefix", "value": "/several/one"}},
                        {"path": {"type": "PathPrefix", "value": "/several/t%20wo"}},
                        {"path": {"type": "RegularExpression", "value": "/several/three/[0-9]+/x"}},
                    ],
                    sessionPersistence=IN_COOKIE,
                ),
                rule(to_service("left"), path="/plain"),
            ),
        )
        await gateway.prefers("default/left", *left)
        await gateway.prefers("default/right", *right)
        yield found


both_kinds = pytest.mark.parametrize("kind", ["service", "pool"])


def _cookie(answer: httpx.Response) -> SimpleCookie:
    """What the gateway set, beside the backend's own."""
    found = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        if not line.startswith("own="):
            found.load(line)
    return found


async def _begin(http: httpx.AsyncClient, path: str) -> tuple[str, str]:
    """A session in a cookie: who serves it, and the cookie."""
    http.cookies.clear()
    answer = await http.post(path, content=b"x")
    (morsel,) = _cookie(answer).values()
    http.cookies.clear()
    return answer.text, f"{morsel.key}={morsel.value}"


async def _served(http: httpx.AsyncClient, path: str, cookie: str, *, count: int = 30) -> Counter[str]:
    """Who serves requests with a cookie. The gateway does not set it again."""
    found: Counter[str] = Counter()
    for _ in range(count):
        http.cookies.clear()
        answer = await http.post(path, content=b"x", headers={"cookie": f"own=2; {cookie}; more=3"})
        assert not _cookie(answer)
        found[answer.text] += 1
    return found


@both_kinds
async def test_cookie_keeps_a_session_on_its_endpoint(
    http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    sessions = [await _begin(http, f"/{kind}/cookie") for _ in range(12)]
    assert len({server for server, _ in sessions}) > 1
    for server, cookie in sessions[:4]:
        assert await _served(http, f"/{kind}/cookie", cookie) == {server: 30}


@both_kinds
async def test_cookie_is_the_browser_s_alone_and_ends_with_it(
    http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    answer = await http.post(f"/{kind}/cookie/more", content=b"x")
    http.cookies.clear()
    assert "own=1" in answer.headers.get_list("set-cookie")
    morsel = _cookie(answer)["at"]
    assert (morsel["path"], morsel["httponly"], morsel["samesite"]) == (f"/{kind}/cookie", True, "Strict")
    assert (morsel["max-age"], morsel["expires"], morsel["secure"]) == ("", "", "")


async def test_permanent_cookie_says_how_long(http: httpx.AsyncClient, backends: dict[str, Backend]) -> None:
    answer = await http.post("/kept", content=b"x")
    http.cookies.clear()
    assert _cookie(answer)["at"]["max-age"] == "300"


@both_kinds
async def test_header_keeps_a_session_on_its_endpoint(
    http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    path = f"/{kind}/header"
    first = await http.post(path, content=b"x")
    (token,) = first.headers.get_list("x-session")
    assert token != "theirs"
    answers = [await http.post(path, content=b"x", headers={"x-session": token}) for _ in range(30)]
    assert {(answer.text, answer.headers["x-session"]) for answer in answers} == {(first.text, token)}


@both_kinds
async def test_session_stays_with_its_backend(http: httpx.AsyncClient, backends: dict[str, Backend], kind: str) -> None:
    sessions = [await _begin(http, f"/{kind}/both") for _ in range(40)]
    of_left = sum(server in "abc" for server, _ in sessions)
    assert 4 < of_left < 36  # 20 expected, five standard deviations
    for server, cookie in sessions[:4]:
        assert await _served(http, f"/{kind}/both", cookie) == {server: 30}


async def test_session_stays_with_a_service_or_a_pool(http: httpx.AsyncClient, backends: dict[str, Backend]) -> None:
    for server, cookie in [await _begin(http, "/mixed") for _ in range(6)]:
        assert cookie.startswith("infergate-session-")
        assert await _served(http, "/mixed", cookie, count=10) == {server: 10}


@both_kinds
async def test_session_outlives_the_weight_of_its_backend(
    gateway: Gateway, http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    to_one = to_service if kind == "service" else to_pool

    def weights(left: int, right: int) -> Json:
        shares = [to_one("left", weight=left), to_one("right", weight=right)]
        return route(f"moving-{kind}", rule(*shares, path=f"/moving-{kind}", sessionPersistence=IN_COOKIE))

    await gateway.apply(f"moving-{kind}.yaml", weights(0, 1))
    server, cookie = await _begin(http, f"/moving-{kind}")
    await gateway.apply(f"moving-{kind}.yaml", weights(1, 0))
    assert server in "de"
    assert await _served(http, f"/moving-{kind}", cookie) == {server: 30}
    assert (await _begin(http, f"/moving-{kind}"))[0] in "abc"


@both_kinds
async def test_session_of_one_rule_is_none_of_another(
    http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    _, cookie = await _begin(http, f"/{kind}/cookie")
    answer = await http.post(f"/{kind}/both", content=b"x", headers={"cookie": cookie})
    http.cookies.clear()
    assert _cookie(answer)["at"].value.split("-")[0] != cookie.removeprefix("at=").split("-")[0]


@pytest.mark.parametrize(
    ("path", "of_cookie"),
    [
        ("/several/one/a", "/several/one"),
        ("/several/t%20wo/a", "/several/t%20wo"),
        ("/several/three/4/x", "/several/three"),
    ],
)
async def test_cookie_is_for_the_path_of_its_match(
    http: httpx.AsyncClient, backends: dict[str, Backend], path: str, of_cookie: str
) -> None:
    answer = await http.get(path)
    http.cookies.clear()
    assert _cookie(answer)["at"]["path"] == of_cookie
    server, cookie = await _begin(http, path)
    assert await _served(http, path, cookie) == {server: 30}


FORGED = [
    "",
    "x",
    "-",
    "@infergate_error",
    "127.0.0.1:1",
    f"{NOWHERE}-{NOWHERE}-0",
    "{backend}",
    "{backend}-{nowhere}-{began}",
]


@both_kinds
@pytest.mark.parametrize("token", FORGED)
async def test_client_chooses_no_address(
    http: httpx.AsyncClient, backends: dict[str, Backend], kind: str, token: str
) -> None:
    _, cookie = await _begin(http, f"/{kind}/cookie")
    backend, _, began = cookie.removeprefix("at=").split("-")
    nowhere = session_id("default/left:80" if kind == "service" else "default/left", "127.0.0.1:1")
    forged = token.format(backend=backend, nowhere=nowhere, began=began)
    answer = await http.post(f"/{kind}/cookie", content=b"x", headers={"cookie": f"at={forged}"})
    http.cookies.clear()
    assert (answer.status_code, answer.text in "abc") == (200, True)
    assert _cookie(answer)["at"].value != forged


async def test_session_is_over_after_its_time(http: httpx.AsyncClient, backends: dict[str, Backend]) -> None:
    _, cookie = await _begin(http, "/timed")
    ids, began = cookie.rpartition("-")[0], int(cookie.rpartition("-")[2], 36)
    for at, is_over in ((began - 3500, False), (began - 3601, True), (began + 3600, True)):
        answer = await http.post("/timed", content=b"x", headers={"cookie": f"{ids}-{_base36(at)}"})
        http.cookies.clear()
        assert bool(_cookie(answer)) == is_over


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (_base36(number // 36) if number >= 36 else "") + digits[number % 36]


@both_kinds
async def test_session_moves_when_its_endpoint_is_gone(
    gateway: Gateway, http: httpx.AsyncClient, backends: dict[str, Backend], kind: str
) -> None:
    async def name(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(request.server.encode()))

    path, make = f"/gone-{kind}", service if kind == "service" else pool
    to = to_service("gone") if kind == "service" else to_pool("gone")
    made = route(f"gone-{kind}", rule(to, path=path, sessionPersistence=IN_COOKIE))
    async with serve(name, name="stays") as stays:
        async with serve(name, name="goes") as goes:
            await gateway.apply(f"gone-{kind}.yaml", make("gone", goes.address), made)
            server, cookie = await _begin(http, path)
            assert server == "goes"
            await gateway.apply(f"gone-{kind}.yaml", make("gone", goes.address, stays.address), made)
            if kind == "pool":
                await gateway.prefers("default/gone", goes.address, stays.address)
            assert await _served(http, path, cookie) == {"goes": 30}
        # It cannot be reached, and is in the list still.
        answer = await http.post(path, content=b"x", headers={"cookie": cookie})
        http.cookies.clear()
        assert (answer.status_code, answer.text) == (200, "stays")
        moved = _cookie(answer)["at"].value
        assert await _served(http, path, f"at={moved}") == {"stays": 30}
        await gateway.apply(f"gone-{kind}.yaml", make("gone", stays.address), made)
        answer = await http.post(path, content=b"x", headers={"cookie": cookie})
        http.cookies.clear()
        assert _cookie(answer)["at"].value.rpartition("-")[0] == moved.rpartition("-")[0]


async def test_own_cookie_is_added_to_whatever_a_filter_removes(
    http: httpx.AsyncClient, backends: dict[str, Backend]
) -> None:
    answer = await http.post("/changed", content=b"x")
    http.cookies.clear()
    assert len(answer.headers.get_list("set-cookie")) == 1
    assert "at" in _cookie(answer)


async def test_rule_without_sessions_sets_nothing(http: httpx.AsyncClient, backends: dict[str, Backend]) -> None:
    answer = await http.post("/plain", content=b"x")
    http.cookies.clear()
    assert answer.headers.get_list("set-cookie") == ["own=1"]


async def test_calls_have_sessions(gateway: Gateway) -> None:
    async with serve_calls("one") as one, serve_calls("two") as two:
        kept = call_rule(to_service("calls"), sessionPersistence={"type": "Header", "sessionName": "At-Session"})
        await gateway.apply(
            "calls.yaml",
            service("calls", one.address, two.address),
            call_route("calls", kept, hostnames=["calls.example"]),
        )
        async with calls_to(gateway.port, host="calls.example") as calls:
            ask = calls.channel.unary_unary(f"/{SERVICE}/Describe")
            begun = ask(b"", timeout=15)
            server = json.loads(await begun)["server"]
            token = dict(await begun.initial_metadata())["at-session"]
            told = [await calls.call(at_session=token) for _ in range(20)]
    assert {answer.body["server"] for answer in told} == {server}
