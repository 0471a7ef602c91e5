"""Which listener, rule and order serve a host and a path."""

from itertools import permutations

import pytest

from controller.ir.types import Case, Match, PathKind, PathMatch, Rule, Server, ValueMatch
from controller.resources.meta import Key
from controller.translate.locations import locations_of
from controller.translate.precedence import precedence
from controller.translate.servers import Attached, Listening, servers_of

GATEWAY = Key("gateway.networking.k8s.io", "Gateway", "demo", "gateway")


def _case(path: str = "/", *, route: str = "r", kind: PathKind = PathKind.PREFIX, **more: object) -> Case:
    value = path.rstrip("/") if kind is PathKind.PREFIX else path
    rule = Rule(Key("", "HTTPRoute", "demo", route), 0, "", filters=(), backends=())
    return Case(Match(PathMatch(kind, value), **more), rule)  # type: ignore[arg-type]  # fields of Match by name


def _listening(name: str, hostname: str = "*", *routes: Attached) -> Listening:
    return Listening(GATEWAY, name, 80, hostname, certificates=(), routes=routes)


def _attached(hostnames: tuple[str, ...], cases: tuple[Case, ...], *, named: tuple[str, ...] | None = None) -> Attached:
    return Attached(hostnames, cases, named=named or hostnames)


def _routes(server: Server, path: str = "/") -> list[str]:
    return [case.rule.route.name for location in server.locations if location.path == path for case in location.cases]


def _by_host(servers: tuple[Server, ...]) -> dict[str, Server]:
    return {hostname: server for server in servers for hostname in server.hostnames}


HEADER = (ValueMatch("a", "1"),)
RANKED = [
    Match(PathMatch(PathKind.EXACT, "/a")),
    Match(PathMatch(PathKind.REGEX, "/a|/longer")),
    Match(PathMatch(PathKind.REGEX, "/a")),
    Match(PathMatch(PathKind.PREFIX, "/a/b"), method="GET"),
    Match(PathMatch(PathKind.PREFIX, "/a/b"), headers=HEADER),
    Match(PathMatch(PathKind.PREFIX, "/a"), method="GET", headers=HEADER),
    Match(PathMatch(PathKind.PREFIX, "/a"), method="GET"),
    Match(PathMatch(PathKind.PREFIX, "/a"), headers=(*HEADER, ValueMatch("b", "1"))),
    Match(PathMatch(PathKind.PREFIX, "/a"), headers=HEADER, query=(ValueMatch("q", "1"),)),
    Match(PathMatch(PathKind.PREFIX, "/a"), headers=HEADER),
    Match(PathMatch(PathKind.PREFIX, "/a"), query=(ValueMatch("q", "1"), ValueMatch("r", "1"))),
    Match(PathMatch(PathKind.PREFIX, "/a"), query=(ValueMatch("q", "1"),)),
    Match(PathMatch(PathKind.PREFIX, "/a")),
    Match(PathMatch(PathKind.PREFIX, "")),
]


def test_matches_are_ranked_as_the_specification_says() -> None:
    assert sorted(set(RANKED), key=precedence) == RANKED


def test_prefix_matches_by_segment_and_falls_back_to_shorter_ones() -> None:
    found = {
        (item.path, item.is_exact): [case.rule.route.name for case in item.cases]
        for item in locations_of([_case("/a/b", route="deep", method="GET"), _case("/a", route="up")])
    }
    assert found == {
        ("/a", True): ["up"],
        ("/a/", False): ["up"],
        ("/a/b", True): ["deep", "up"],
        ("/a/b/", False): ["deep", "up"],
    }


def test_path_without_its_slash_has_a_location_of_its_own() -> None:
    cases = [_case("/a/", route="slash", kind=PathKind.EXACT), _case("/", route="rest", kind=PathKind.EXACT)]
    found = {item.path: [case.rule.route.name for case in item.cases] for item in locations_of(cases)}
    assert found == {"/": ["rest"], "/a": [], "/a/": ["slash"]}


def test_cases_behind_one_that_always_holds_are_dropped() -> None:
    (location, *_) = locations_of([_case("/", route="first"), _case("/", route="second")])
    assert [case.rule.route.name for case in location.cases] == ["first"]
    assert location.is_complete


def test_regular_expression_is_asked_in_every_location_it_may_hold_for() -> None:
    cases = [_case("/x/[0-9]+", route="regex", kind=PathKind.REGEX), _case("/x", route="prefix")]
    found = {item.path: [case.rule.route.name for case in item.cases] for item in locations_of(cases)}
    assert found == {"/": ["regex"], "/x": ["regex", "prefix"], "/x/": ["regex", "prefix"]}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_host_belongs_to_the_most_specific_listener(order: tuple[int, ...]) -> None:
    listeners = [
        _listening("any", "*", _attached(("*",), (_case(route="any"),))),
        _listening("wild", "*.example.com", _attached(("*.example.com",), (_case(route="wild"),))),
        _listening("exact", "a.example.com", _attached(("a.example.com",), (_case(route="exact"),))),
    ]
    servers = _by_host(servers_of([listeners[index] for index in order]))
    assert {host: (server.listener, _routes(server)) for host, server in servers.items()} == {
        "*": ("any", ["any"]),
        "*.example.com": ("wild", ["wild"]),
        "a.example.com": ("exact", ["exact"]),
    }


def test_route_of_a_less_specific_listener_does_not_serve_the_host_of_another() -> None:
    servers = _by_host(
        servers_of(
            [
                _listening("any", "*", _attached(("a.example.com", "b.example.com"), (_case(route="any"),))),
                _listening("exact", "a.example.com"),
            ]
        )
    )
    assert _routes(servers["a.example.com"]) == []
    assert _routes(servers["b.example.com"]) == ["any"]


def test_own_host_of_a_route_comes_first_too_where_the_listener_has_no_other() -> None:
    """Source: Gateway API, HTTPRouteSpec.hostnames."""
    host = ("a.example.com",)
    anyone = _attached(host, (_case("/long/path", route="any"),), named=("*",))
    wildcard = _attached(host, (_case("/long", route="wildcard"),), named=("*.example.com",))
    own = _attached(host, (_case("/", route="own", method="GET"),))
    servers = _by_host(servers_of([_listening("http", "a.example.com", anyone, wildcard, own)]))
    assert _routes(servers["a.example.com"], "/long/path") == ["own", "wildcard"]


def test_own_host_of_a_route_is_asked_before_its_wildcard_whatever_the_path() -> None:
    wildcard = _attached(("*.example.com",), (_case("/exact", route="wildcard", kind=PathKind.EXACT),))
    own = _attached(("a.example.com",), (_case("/", route="own", method="GET"),))
    servers = _by_host(servers_of([_listening("http", "*", wildcard, own)]))
    assert _routes(servers["a.example.com"], "/exact") == ["own", "wildcard"]
    assert _routes(servers["*.example.com"], "/exact") == ["wildcard"]


def test_older_route_wins_what_is_otherwise_equal() -> None:
    older, younger = _attached(("*",), (_case(route="older"),)), _attached(("*",), (_case(route="younger"),))
    (server,) = servers_of([_listening("http", "*", older, younger)])
    assert _routes(server) == ["older"]


def test_hosts_that_are_served_alike_share_a_server() -> None:
    servers = servers_of([_listening("http", "*", _attached(("a.example.com", "b.example.com"), (_case(),)))])
    assert [server.hostnames for server in servers] == [("*",), ("a.example.com", "b.example.com")]
