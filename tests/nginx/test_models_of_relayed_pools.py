"""Questions for the models of several pools, of which some or all have external pickers."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from tests.nginx.ext_proc import Picker, as_the_field_does, serve_ext_proc
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import Json, picked_pool, pool, route, rule, to_pool
from tests.nginx.servers import Backend, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

ORIGIN = "https://a.example"


@dataclass(frozen=True)
class Pools:
    """The endpoints of pools, by name. `own` has the built-in picker, the others have one that is played."""

    picker: Picker
    own: Backend
    theirs: Backend
    guarded: Backend
    """Lists nothing."""
    alone: Backend
    """Has a rule of its own."""

    @property
    def others(self) -> tuple[Backend, ...]:
        return (self.theirs, self.guarded, self.alone)


def _divided(*names: str) -> Json:
    cors = {"type": "CORS", "cors": {"allowOrigins": [ORIGIN]}}
    return rule(*(to_pool(name) for name in names), filters=[cors])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools(gateway: Gateway) -> AsyncIterator[Pools]:
    def by_name(name: str) -> Json:
        return rule(to_pool(name), matches=[{"headers": [{"name": "X-Gateway-Model-Name", "value": name}]}])

    async with (
        serve(name="own") as own,
        serve(name="theirs") as theirs,
        serve(name="guarded") as guarded,
        serve(name="alone") as alone,
        serve_ext_proc(as_the_field_does(theirs.address, guarded.address, alone.address)) as picker,
    ):
        own.models, theirs.models, alone.models = ("own", "both"), ("theirs", "both"), ("alone",)
        pickers = [picker.address]
        await gateway.apply(
            "pools.yaml",
            pool("own", own.address),
            picked_pool("theirs", theirs.address, pickers=pickers),
            picked_pool("guarded", guarded.address, pickers=pickers),
            picked_pool("again", guarded.address, pickers=pickers),
            picked_pool("alone", alone.address, pickers=pickers),
            route("mixed", _divided("own", "theirs"), hostnames=["mixed.example"]),
            route("named", by_name("own"), by_name("theirs"), hostnames=["named.example"]),
            route("guarded", _divided("guarded", "again"), hostnames=["guarded.example"]),
            route("alone", rule(to_pool("alone")), hostnames=["alone.example"]),
        )
        yield Pools(picker, own, theirs, guarded, alone)


async def _ask(http: httpx.AsyncClient, host: str, path: str = "/v1/models") -> httpx.Response:
    return await http.get(path, headers={"host": f"{host}.example", "origin": ORIGIN})


async def _are_known(http: httpx.AsyncClient, host: str) -> None:
    async def is_so() -> bool:
        answer = await _ask(http, host)
        return answer.status_code == 200 and len(answer.json().get("data", ())) == 3

    await eventually(is_so)


@pytest.mark.usefixtures("pools")
@pytest.mark.parametrize("host", ["mixed", "named"])
async def test_pools_with_different_pickers_are_listed_together(http: httpx.AsyncClient, host: str) -> None:
    await _are_known(http, host)
    for _ in range(20):
        answer = await _ask(http, host)
        assert [model["id"] for model in answer.json()["data"]] == ["both", "own", "theirs"]
        assert (await _ask(http, host, "/v1/models/both")).json()["id"] == "both"


async def test_no_picker_of_others_is_asked_what_the_gateway_knows(http: httpx.AsyncClient, pools: Pools) -> None:
    await _are_known(http, "mixed")
    pools.picker.stages.clear()
    for _ in range(20):
        assert len((await _ask(http, "mixed")).json()["data"]) == 3
    assert pools.picker.stages == []


@pytest.mark.usefixtures("pools")
async def test_list_of_a_rule_is_for_other_origins_as_its_answers_are(http: httpx.AsyncClient) -> None:
    await _are_known(http, "mixed")
    answers = [await _ask(http, "mixed") for _ in range(20)]
    assert {answer.headers.get("access-control-allow-origin") for answer in answers} == {ORIGIN}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/unknown", "/v1/models/"])
async def test_what_is_not_known_is_left_to_the_picker_that_was_drawn(
    http: httpx.AsyncClient, pools: Pools, path: str
) -> None:
    pools.picker.stages.clear()
    answer = await _ask(http, "guarded", path)
    assert (answer.status_code, answer.json()["server"], answer.json()["target"]) == (200, "guarded", path)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert len(pools.picker.stages) == 1


async def test_requests_of_the_rule_are_picked_for_as_ever(http: httpx.AsyncClient, pools: Pools) -> None:
    pools.picker.stages.clear()
    headers = {"host": "guarded.example"}
    for body in (b"{}", bytes(400_000)):
        answer = await http.post("/v1/chat/completions", content=body, headers=headers)
        assert (answer.status_code, answer.json()["server"], answer.json()["size"]) == (200, "guarded", len(body))
    assert len(pools.picker.stages) == 2


async def test_pool_by_itself_is_asked_by_its_own_picker(http: httpx.AsyncClient, pools: Pools) -> None:
    pools.picker.stages.clear()
    answer = await _ask(http, "alone")
    assert (answer.json()["server"], len(pools.picker.stages)) == ("alone", 1)


async def test_pods_of_other_pickers_are_asked_for_lists_alone_and_only_where_needed(
    gateway: Gateway, http: httpx.AsyncClient, pools: Pools
) -> None:
    async def own_was_scraped() -> bool:
        return "/metrics" in pools.own.asked and "/v1/models" in pools.own.asked

    await _are_known(http, "mixed")
    await eventually(own_was_scraped)
    assert [set(backend.asked) for backend in pools.others] == [{"/v1/models"}, {"/v1/models"}, set()]
    assert [shown["name"] for shown in (await gateway.pools())["pools"]] == ["default/own"]


async def test_while_the_picker_beside_nginx_is_away_the_other_answers(
    gateway: Gateway, http: httpx.AsyncClient, pools: Pools
) -> None:
    await _are_known(http, "mixed")

    async def is_theirs() -> bool:
        pid = gateway.data_plane.picker_pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        answer = await _ask(http, "mixed")
        return answer.status_code == 200 and answer.json().get("server") == "theirs"

    await eventually(is_theirs)
    await _are_known(http, "mixed")
