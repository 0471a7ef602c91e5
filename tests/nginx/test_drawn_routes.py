"""Routes that are drawn at random from few hosts, paths and conditions, so that they collide.

What NGINX answers is compared with the specification's rules, told here once more in their plainest form: every match
of every route is tried, and the best one that holds serves.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import pytest

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, header, pool, request_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import exchange, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

HOSTS = ("a.ex", "b.a.ex", "*.ex", "*.a.ex", "*.b.a.ex")
ASKED_HOSTS = ("a.ex", "b.a.ex", "c.b.a.ex", "d.ex", "ex", "A.EX")
PATHS = (
    ("PathPrefix", "/"),
    ("PathPrefix", "/a"),
    ("PathPrefix", "/a/b/"),
    ("PathPrefix", "/a%20b"),
    ("Exact", "/"),
    ("Exact", "/a"),
    ("Exact", "/a/"),
    ("Exact", "/a/b"),
    ("RegularExpression", ".*"),
    ("RegularExpression", "^/a.*"),
    ("RegularExpression", "/[ab]/b"),
)
ASKED_PATHS = ("/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/A", "/b/b", "/b", "/c")
METHODS = ("GET", "POST", "PUT")
HEADERS = (
    *(("Exact", "x-a", value) for value in ("1", "One", "$x")),
    *(("Exact", "X-B", value) for value in ("1", 'a"b')),
    ("RegularExpression", "x-a", "o.*|[0-9]+"),
    ("RegularExpression", "x-b", "1|2"),
    ("RegularExpression", "x-c", ".*"),
)
PARAMETERS = (("q", "1"), ("q", "One"), ("Q", "1"), ("a-b", "1"))


@dataclass(frozen=True)
class Asked:
    host: str
    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]


def _match(chance: Random, paths: Sequence[tuple[str, str]]) -> Json:
    kind, path = chance.choice(paths)
    made: Json = {"path": {"type": kind, "value": path}}
    if chance.random() < 0.25:
        made["method"] = chance.choice(METHODS)
    if chance.random() < 0.5:
        drawn = {name.lower(): (kind, name, value) for kind, name, value in chance.sample(HEADERS, 2)}
        made["headers"] = [{"type": kind, "name": name, "value": value} for kind, name, value in drawn.values()]
    if chance.random() < 0.3:
        name, value = chance.choice(PARAMETERS)
        made["queryParams"] = [{"name": name, "value": value}]
    return made


def _routes(chance: Random) -> list[Json]:
    """Each rule tells its backend `route.rule`."""
    paths = chance.sample(PATHS, chance.randint(2, 8))
    found = []
    for number in range(chance.randint(5, 30)):
        rules = []
        for index in range(chance.randint(1, 4)):
            told = request_headers(set=[header("x-rule", f"r{number:02}.{index}")])
            target = chance.choice((to_pool("backend"), to_service("backend")))
            matches = [_match(chance, paths) for _ in range(chance.randint(1, 3))]
            rules.append(rule(target, matches=matches, filters=[told]))
        made = route(f"r{number:02}", *rules, hostnames=chance.sample(HOSTS, chance.randint(0, 2)))
        made["metadata"]["creationTimestamp"] = f"202{chance.randint(0, 2)}-01-01T00:00:00Z"
        found.append(made)
    return found


def _asked(chance: Random) -> Asked:
    return Asked(
        host=chance.choice(ASKED_HOSTS),
        method=chance.choice(METHODS),
        path=chance.choice(ASKED_PATHS),
        headers={name: chance.choice(("1", "One", "one", "$x", 'a"b')) for name in chance.sample(("x-a", "x-b"), 1)},
        query=dict(chance.sample(PARAMETERS, chance.randint(0, 2))),
    )


def _best(routes: Sequence[Json], asked: Asked) -> str | None:
    """Source: Gateway API, HTTPRouteSpec.hostnames and HTTPRouteRule.matches."""
    held = [found for made in routes for found in _holding(made, asked)]
    return str(min(held)[-1]) if held else None


def _holding(made: Json, asked: Asked) -> Iterator[tuple[object, ...]]:
    """Matches of a route that hold: what they are ranked by, the best one first, and the rule."""
    hosts = [name for name in made["spec"].get("hostnames", ["*"]) if _covers(name, asked.host.lower())]
    if not hosts:
        return
    longest = min((-len(name) * (not name.startswith("*")), -len(name)) for name in hosts)
    for index, item in enumerate(made["spec"]["rules"]):
        for number, match in enumerate(item["matches"]):
            path = _path(match["path"], asked.path)
            if path is None or match.get("method", asked.method) != asked.method:
                continue
            headers, query = match.get("headers", []), match.get("queryParams", [])
            if not all(_has(one, asked.headers.get(one["name"].lower())) for one in headers):
                continue
            if not all(_has(one, asked.query.get(one["name"])) for one in query):
                continue
            rank = (longest, path, "method" not in match, -len(headers), -len(query))
            age = (made["metadata"]["creationTimestamp"], made["metadata"]["name"])
            yield (*rank, *age, index, number, f"{made['metadata']['name']}.{index}")


def _covers(pattern: str, host: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _path(match: Json, asked: str) -> tuple[int, int] | None:
    """Exact before regular expressions before prefixes, and the longer one first."""
    kind, value = match["type"], match["value"].replace("%20", " ")
    if kind == "Exact":
        return (0, -len(value)) if value == asked else None
    if kind == "RegularExpression":
        return (1, -len(value)) if re.fullmatch(value, asked) else None
    value = value.rstrip("/")
    return (2, -len(value)) if asked == value or asked.startswith(f"{value}/") else None


def _has(wanted: Json, value: str | None) -> bool:
    if value is None or wanted.get("type") != "RegularExpression":
        return bool(value == wanted["value"])
    return re.fullmatch(wanted["value"], value) is not None


@pytest.mark.parametrize("seed", range(12))
async def test_request_meets_the_rule_that_the_specification_names(gateway: Gateway, seed: int) -> None:
    chance = Random(seed)
    routes = _routes(chance)
    async with serve() as backend:
        shuffled = chance.sample(routes, len(routes))
        own = (pool("backend", backend.address), service("backend", backend.address))
        await gateway.apply("routes.yaml", *own, *shuffled)
        for _ in range(150):
            asked = _asked(chance)
            query = "&".join(f"{name}={value}" for name, value in asked.query.items())
            lines = [f"{name}: {value}" for name, value in {"Host": asked.host, **asked.headers}.items()]
            head = f"{asked.method} {asked.path}?{query} HTTP/1.1"
            sent = "\r\n".join([head, *lines, "Content-Length: 0", "Connection: close", "", ""])
            status, _, body = (await exchange(gateway.port, sent.encode())).partition(b"\r\n\r\n")
            wanted = _best(routes, asked)
            if wanted is None:
                assert status.startswith(b"HTTP/1.1 404 "), asked
            else:
                assert status.startswith(b"HTTP/1.1 200 "), asked
                assert dict(json.loads(body)["headers"])["x-rule"] == wanted, asked
        await gateway.apply("routes.yaml")
