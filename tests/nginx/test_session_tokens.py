"""Clients that keep the endpoint of their session, by a token that they are told."""

import httpx
import pytest

from tests.nginx.gateway import Gateway
from tests.nginx.resources import header, picker_policy, pool, response_headers, route, rule, to_pool
from tests.nginx.servers import serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

TOKEN = "x-session-token"


async def test_client_that_sends_its_token_back_stays(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve(name="a") as a, serve(name="b") as b:
        changed = [response_headers(set=[header("X-Set", "yes")])]
        await gateway.apply(
            "routes.yaml",
            pool("kept", a.address, b.address),
            picker_policy("kept", config={"plugins": [{"type": "session-affinity-filter"}, {"type": "random-picker"}]}),
            pool("other", a.address),
            route(
                "all",
                rule(to_pool("kept"), path="/kept"),
                rule(to_pool("kept"), path="/changed", filters=changed),
                rule(to_pool("other"), path="/other"),
            ),
        )
        await gateway.prefers("default/kept", a.address, b.address)
        for path in ("/kept", "/changed"):
            first = await http.post(path, content=b"x")
            (token,) = first.headers.get_list(TOKEN)
            again = [await http.post(path, content=b"x", headers={TOKEN: token}) for _ in range(10)]
            assert {one.json()["server"] for one in again} == {first.json()["server"]}
            assert {one.headers[TOKEN] for one in again} == {token}
        found = {(await http.post("/kept", content=b"x")).json()["server"] for _ in range(20)}
        assert found == {"a", "b"}
        assert TOKEN not in (await http.post("/other", content=b"x")).headers
