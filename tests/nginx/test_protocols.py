"""What is spoken with the backends of a Service, by the appProtocol of its port."""

import httpx
import pytest

from tests.nginx.gateway import Gateway, client_of
from tests.nginx.http2 import serve_http2
from tests.nginx.resources import header, request_headers, route, rule, service, to_service

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("http2", [False, True])
async def test_service_of_http2_is_spoken_to_in_it(gateway: Gateway, http2: bool) -> None:
    filters = [request_headers(set=[header("X-Set", "value")])]
    async with serve_http2() as address, client_of(gateway, http2=http2) as http:
        await gateway.apply(
            "routes.yaml",
            service("two", address, protocol="kubernetes.io/h2c"),
            route("all", rule(to_service("two"), path="/v1", filters=filters)),
        )
        answers = [
            await http.post("/v1/a%20b?c=d", content=b"x" * size, headers={"Host": "a.example"}) for size in SIZES
        ]
    for answer, size in zip(answers, SIZES, strict=True):
        shown = answer.json()
        arrived = dict(shown["headers"])
        assert (answer.status_code, shown["size"]) == (200, size)
        assert (arrived[":method"], arrived[":path"], arrived["host"]) == ("POST", "/v1/a%20b?c=d", "a.example")
        assert arrived["x-set"] == "value"


SIZES = [0, 1, 400_000]


async def test_service_of_http2_is_sent_no_header_of_a_connection(gateway: Gateway, http: httpx.AsyncClient) -> None:
    sent = {"Connection": "Upgrade", "Upgrade": "websocket", "TE": "gzip", "Keep-Alive": "5"}
    async with serve_http2() as address:
        await gateway.apply(
            "routes.yaml",
            service("two", address, protocol="kubernetes.io/h2c"),
            route("all", rule(to_service("two"))),
        )
        answer = await http.get("/", headers=sent)
    assert answer.status_code == 200
    names = {name for name, _ in answer.json()["headers"]}
    assert not names & {"connection", "upgrade", "keep-alive"}
