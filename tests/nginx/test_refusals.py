"""What nginx refuses, or the machine, takes nothing else with it."""

import socket
from pathlib import Path

import pytest

from controller.agent.nginx import Nginx
from controller.topology import matches
from tests.nginx.gateway import client_of, run_gateway, until
from tests.nginx.resources import Json, listener, pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx]

PATTERN = "a(?:b"
"""An expression that nginx refuses, and so does the check of expressions unless it is taken away."""


def _conditions(status: Json, *, parent: int = 0) -> dict[str, Json]:
    return {item["type"]: item for item in status["parents"][parent]["conditions"]}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every regular expression through to nginx."""
    monkeypatch.setattr(matches, "expression", lambda text: text)


@pytest.mark.usefixtures("unchecked")
async def test_route_that_nginx_refuses_answers_500_and_the_rest_is_served(tmp_path: Path, nginx: Nginx) -> None:
    header = {"type": "RegularExpression", "name": "X-Model", "value": PATTERN}
    bad = route(
        "bad",
        rule(to_service("web"), matches=[{"path": {"value": "/bad"}, "headers": [header]}]),
        rule(to_service("web"), path="/bad/plain"),
    )
    async with serve(name="web") as web, run_gateway(tmp_path, nginx) as gateway:
        await gateway.apply("web.yaml", service("web", web.address), pool("gpu", web.address))
        await gateway.apply("good.yaml", route("good", rule(to_service("web")), rule(to_pool("gpu"), path="/pool")))
        await gateway.apply("bad.yaml", bad)
        await gateway.apply("later.yaml", route("later", rule(to_service("web"), path="/later")))
        async with client_of(gateway) as http:
            statuses = {path: (await http.get(path)).status_code for path in ("/x", "/pool", "/later", "/bad/plain")}
        assert statuses == {"/x": 200, "/pool": 200, "/later": 200, "/bad/plain": 500}
        conditions = _conditions(gateway.status("HTTPRoute", "bad"))
        assert conditions["Accepted"]["status"] == "True"
        assert "pcre" in conditions["PartiallyInvalid"]["message"]
        assert PATTERN in conditions["PartiallyInvalid"]["message"]
        assert "PartiallyInvalid" not in _conditions(gateway.status("HTTPRoute", "good"))


@pytest.mark.usefixtures("unchecked")
async def test_refused_route_is_served_once_it_is_mended(tmp_path: Path, nginx: Nginx) -> None:
    def made(pattern: str) -> Json:
        header = {"type": "RegularExpression", "name": "X-Model", "value": pattern}
        return route("bad", rule(to_service("web"), matches=[{"path": {"value": "/"}, "headers": [header]}]))

    async with serve() as web, run_gateway(tmp_path, nginx) as gateway:
        await gateway.apply("web.yaml", service("web", web.address))
        await gateway.apply("bad.yaml", made(PATTERN))
        assert "PartiallyInvalid" in _conditions(gateway.status("HTTPRoute", "bad"))
        await gateway.apply("bad.yaml", made("a(?:b)"))
        assert "PartiallyInvalid" not in _conditions(gateway.status("HTTPRoute", "bad"))
        async with client_of(gateway) as http:
            assert (await http.get("/", headers={"X-Model": "ab"})).status_code == 200


async def test_listener_whose_port_is_taken_comes_alive_when_it_is_free(tmp_path: Path, nginx: Nginx) -> None:
    (taken,) = free_ports(1)

    def listeners(port: int) -> list[Json]:
        return [listener(port), listener(taken, name="late")]

    def programmed() -> str:
        state = gateway.status("Gateway", "edge")["listeners"]
        return str(
            next(
                condition["status"]
                for item in state
                for condition in item["conditions"]
                if (item["name"], condition["type"]) == ("late", "Programmed")
            )
        )

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", taken))
        other.listen()
        async with serve() as web, run_gateway(tmp_path, nginx, listeners=listeners, retry=0.2) as gateway:
            await gateway.apply("routes.yaml", service("web", web.address), route("all", rule(to_service("web"))))
            async with client_of(gateway) as http:
                assert (await http.get("/")).status_code == 200
                assert programmed() == "False"
                text = str(gateway.status("Gateway", "edge")["listeners"])
                assert "PortUnavailable" in text
                assert f"127.0.0.1:{taken}" in text
                other.close()
                await until(lambda: programmed() == "True")
                assert (await http.get(f"http://127.0.0.1:{taken}/")).status_code == 200
                assert (await http.get("/")).status_code == 200
