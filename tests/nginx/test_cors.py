"""What browsers are told of other origins."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, pool, redirect, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SOME: Json = {
    "allowOrigins": ["https://www.example.com", "https://*.example.org", "http://localhost:3000"],
    "allowMethods": ["GET", "PUT"],
    "allowHeaders": ["x-one", "x-two"],
    "exposeHeaders": ["x-three"],
    "allowCredentials": True,
    "maxAge": 3600,
}
ANY: Json = {"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"]}
ALLOWED = [
    "https://www.example.com",
    "https://www.example.com:443",
    "https://a.example.org",
    "https://a.b.example.org",
    "http://localhost:3000",
]
REFUSED = [
    "https://example.org",
    "https://www.example.com.evil.net",
    "https://wwwxexample.com",
    "https://evil.net/.example.org",
    "https://www.example.com:8443",
    "http://www.example.com",
    "http://localhost",
    "null",
]


def _cors(fields: Json) -> Json:
    return {"type": "CORS", "cors": fields}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok", "Access-Control-Allow-Origin: https://own.example", "Vary: Accept"))

    async with serve(answer) as backend:
        both = [to_service("backend"), to_pool("backend")]
        await gateway.apply(
            "routes.yaml",
            pool("backend", backend.address),
            pool("empty"),
            service("backend", backend.address),
            route(
                "all",
                rule(to_service("backend"), path="/service", filters=[_cors(SOME)]),
                rule(to_pool("backend"), path="/pool", filters=[_cors(SOME)]),
                rule(*both, path="/both", filters=[_cors(SOME)]),
                rule(to_service("backend", filters=[_cors(SOME)]), path="/inner"),
                rule(to_service("backend"), path="/any", filters=[_cors(ANY)]),
                rule(to_service("backend"), path="/credentials", filters=[_cors({**ANY, "allowCredentials": True})]),
                rule(path="/moved", filters=[_cors(SOME), redirect(hostname="new.example")]),
                rule(to_pool("empty"), path="/empty", filters=[_cors(SOME)]),
            ),
        )
        await gateway.knows("default/backend", backend.address)
        yield backend


everywhere = pytest.mark.parametrize("path", ["/service", "/pool", "/both", "/inner", "/moved"])


def _said(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def _asking(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-one, x-own",
    }


@everywhere
@pytest.mark.parametrize("origin", ALLOWED)
async def test_preflight_is_answered_by_the_gateway(
    http: httpx.AsyncClient, backend: Backend, path: str, origin: str
) -> None:
    before = len(backend.requests)
    answer = await http.options(path, headers=_asking(origin))
    assert (answer.status_code, answer.content, len(backend.requests)) == (204, b"", before)
    assert _said(answer) == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "x-one, x-two",
        "access-control-expose-headers": "x-three",
        "access-control-max-age": "3600",
    }
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["x-request-id"]


@everywhere
@pytest.mark.parametrize("origin", REFUSED)
async def test_other_origin_is_told_nothing(http: httpx.AsyncClient, backend: Backend, path: str, origin: str) -> None:
    before = len(backend.requests)
    preflight = await http.options(path, headers=_asking(origin))
    assert (preflight.status_code, _said(preflight), len(backend.requests)) == (204, {}, before)
    assert _said(await http.get(path, headers={"Origin": origin})) == {}


@everywhere
@pytest.mark.usefixtures("backend")
async def test_answer_tells_that_an_origin_is_allowed(http: httpx.AsyncClient, path: str) -> None:
    for _ in range(5):
        answer = await http.post(path, content=b"x", headers={"Origin": "https://a.example.org"})
        assert answer.status_code == (302 if path == "/moved" else 200)
        assert _said(answer) == {
            "access-control-allow-origin": "https://a.example.org",
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": "x-three",
        }
        assert "Origin" in answer.headers.get_list("vary", split_commas=True)


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://a.example.org"}, {"Access-Control-Request-Method": "PUT"}])
async def test_options_that_is_no_preflight_reaches_the_backend(
    http: httpx.AsyncClient, backend: Backend, headers: dict[str, str]
) -> None:
    assert (await http.options("/service", headers=headers)).content == b"ok"
    assert backend.requests[-1].method == "OPTIONS"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("path", "credentials"), [("/any", None), ("/credentials", "true")])
async def test_asterisk_allows_what_is_asked(http: httpx.AsyncClient, path: str, credentials: str | None) -> None:
    answer = await http.options(path, headers=_asking("https://foo.example:12345"))
    said = _said(answer)
    assert said["access-control-allow-origin"] == "https://foo.example:12345"
    assert (said["access-control-allow-methods"], said["access-control-allow-headers"]) == ("PUT", "x-one, x-own")
    assert (said["access-control-max-age"], said.get("access-control-allow-credentials")) == ("5", credentials)


@pytest.mark.usefixtures("backend")
async def test_refusal_of_the_picker_can_be_read_by_a_script(http: httpx.AsyncClient) -> None:
    answer = await http.post("/empty", content=b"x", headers={"Origin": "https://www.example.com"})
    assert answer.status_code == 503
    assert answer.headers["access-control-allow-origin"] == "https://www.example.com"
