"""Which rule a request meets among so many with conditions that they are looked up, and share locations."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run
from tests.nginx.resources import Json, pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import exchange, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

TENANTS = 150


def _match(**more: object) -> Json:
    return {"path": {"type": "PathPrefix", "value": "/t"}, **more}


def _tenant(value: str, kind: str = "Exact") -> list[Json]:
    return [{"type": kind, "name": "X-Tenant", "value": value}]


def _parameter(name: str, value: str) -> list[Json]:
    return [{"name": name, "value": value}]


MATCHES: dict[str, Json] = {
    **{f"tenant-{number}": _match(headers=_tenant(f"tenant-{number}")) for number in range(3)},
    "pattern": _match(headers=_tenant("tenant-3[0-2]?", "RegularExpression")),
    "capital": _match(headers=_tenant("Tenant-1")),
    "quoted": _match(headers=_tenant('"a" $x\\y ${dollar}')),
    **{f"tenant-{number}": _match(headers=_tenant(f"tenant-{number}")) for number in range(3, TENANTS)},
    "again": _match(headers=_tenant("tenant-5")),
    "post": _match(method="POST", headers=_tenant("tenant-3")),
    "beta": _match(headers=_tenant("tenant-4"), queryParams=_parameter("Beta", "b1")),
    "query": _match(queryParams=_parameter("q", "q1")),
    "space": _match(queryParams=_parameter("q", "a b")),
    "rest": _match(),
}


POOLS = ("tenant-11", "tenant-12", "post")
FILTERS: dict[str, list[Json]] = {
    "tenant-13": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-other"]}}]
}
"""Of a rule that shares no location."""


def _target(name: str) -> Json:
    return to_pool(name) if name in POOLS else to_service(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        backends = {name: await stack.enter_async_context(serve(name=name)) for name in MATCHES}
        gateway = await stack.enter_async_context(run(root, nginx))
        rules = [
            (name, rule(_target(name), matches=[match], filters=FILTERS.get(name, [])))
            for name, match in MATCHES.items()
        ]
        await gateway.apply(
            "routes.yaml",
            *(service(name, backends[name].address) for name in MATCHES),
            *(pool(name, backends[name].address) for name in POOLS),
            # A route has 16 rules at most; of equal ones the first created holds, and then the first by name.
            *(
                route(f"route-{first:03}", *(made for _, made in rules[first : first + 16]))
                for first in range(0, len(rules), 16)
            ),
        )
        yield gateway


FACTS: list[tuple[str, str, str, str]] = [
    ("GET", "/t", "tenant-0", "tenant-0"),
    ("GET", "/t/x", "tenant-2", "tenant-2"),
    ("GET", "/t/x", "tenant-35", "tenant-35"),
    ("PUT", "/t/x", "tenant-35", "tenant-35"),
    *(("GET", f"/t/{number}", f"tenant-{number}", f"tenant-{number}") for number in (9, 10, 11, 12, 13, 14, 148, 149)),
    ("GET", "/t", "tenant-150", "rest"),
    ("GET", "/t", "tenant-1x", "rest"),
    ("GET", "/t", "tenant", "rest"),
    ("GET", "/t", "", "rest"),
    ("GET", "/t", "Tenant-0", "rest"),
    ("GET", "/t", "Tenant-1", "capital"),
    ("GET", "/t", "TENANT-1", "rest"),
    ("GET", "/t", "tenant-3", "pattern"),
    ("GET", "/t", "tenant-31", "pattern"),
    ("GET", "/t", "tenant-33", "tenant-33"),
    ("GET", "/t", '"a" $x\\y ${dollar}', "quoted"),
    ("GET", "/t", "tenant-5", "tenant-5"),
    ("POST", "/t", "tenant-3", "post"),
    ("POST", "/t", "tenant-4", "tenant-4"),
    ("GET", "/t?Beta=b1", "tenant-4", "beta"),
    ("GET", "/t?a=1&Beta=b1&Beta=b2", "tenant-4", "beta"),
    ("GET", "/t?Beta=b%31", "tenant-4", "beta"),
    ("GET", "/t?Bet%61=b1", "tenant-4", "beta"),
    ("GET", "/t?Bet%61=b2&Beta=b1", "tenant-4", "tenant-4"),
    ("GET", "/t?beta=b2&Beta=b1", "tenant-4", "beta"),
    ("GET", "/t?Beta&Beta=b1", "tenant-4", "tenant-4"),
    ("GET", "/t?Beta=b2&Beta=b1", "tenant-4", "tenant-4"),
    ("GET", "/t?Beta=b1&Beta=B1", "tenant-4", "beta"),
    ("GET", "/t?Beta=B1", "tenant-4", "tenant-4"),
    ("GET", "/t?beta=b1", "tenant-4", "tenant-4"),
    ("GET", "/t?xBeta=b1", "tenant-4", "tenant-4"),
    ("GET", "/t?Beta=b1", "tenant-6", "tenant-6"),
    ("GET", "/t?Beta=b1", "", "rest"),
    ("GET", "/t?q=q1", "", "query"),
    ("GET", "/t?q=q1", "tenant-6", "tenant-6"),
    ("GET", "/t?a=%20&q=q1", "", "query"),
    ("GET", "/t?q=Q1", "", "rest"),
    ("GET", "/t?q=%", "", "rest"),
    ("GET", "/t?q=", "", "rest"),
    ("GET", "/t?q", "", "rest"),
    ("GET", "/t?q=a+b", "", "space"),
    ("GET", "/t?q=a%20b", "", "space"),
]


async def test_many_rules_share_locations(gateway: Gateway) -> None:
    assert (gateway.state.current / "rules.conf").read_text().count("/services;") > 128


@pytest.mark.parametrize(("method", "path", "tenant", "served"), FACTS)
async def test_request_meets_its_rule_among_many(
    gateway: Gateway, method: str, path: str, tenant: str, served: str
) -> None:
    lines = ["Host: a", "Connection: close", *([f"X-Tenant: {tenant}"] if tenant else [])]
    answer = await exchange(gateway.port, "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["server"] == served
