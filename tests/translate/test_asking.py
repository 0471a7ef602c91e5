"""Which pools are asked for more than endpoints."""

import pytest

from controller.ir.types import Backend, Case, Location, Match, PathKind, PathMatch, Rule, Server, ToPool, ValueMatch
from controller.resources.meta import Key
from controller.translate.asking import listing_pools

GATEWAY = Key("gateway.networking.k8s.io", "Gateway", "demo", "gateway")
NAME, BASE = "x-gateway-model-name", "x-gateway-base-model-name"


def _case(*pools: str, header: str = "", unused: str = "") -> Case:
    backends = [Backend(ToPool(pool), weight=1) for pool in pools]
    if unused:
        backends.append(Backend(ToPool(unused), weight=0))
    rule = Rule(Key("", "HTTPRoute", "demo", "-".join(pools)), 0, "", filters=(), backends=tuple(backends))
    headers = (ValueMatch(header, "1"),) if header else ()
    return Case(Match(PathMatch(PathKind.PREFIX, ""), headers=headers), rule)


def _server(*locations: tuple[Case, ...]) -> Server:
    return Server(
        GATEWAY, "http", 80, ("*",), (),
        locations=tuple(Location(f"/{number}/", False, cases) for number, cases in enumerate(locations)),
        rules=tuple(case.rule for cases in locations for case in cases),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("locations", "listing"),
    [
        ([(_case("a"),), (_case("b"),)], set()),
        ([(_case("a", header="x-tenant"), _case("b"))], set()),
        ([(_case("a", "b"),), (_case("c"),)], {"a", "b"}),
        ([(_case("a", unused="b"),)], set()),
        ([(_case("a", header=NAME), _case("b")), (_case("c"),)], {"a", "b"}),
        ([(_case("a", header=BASE),), (_case("c"),)], {"a", "c"}),
    ],
)
def test_models_are_asked_of_pools_of_which_somebody_asks_the_gateway(
    locations: list[tuple[Case, ...]], listing: set[str]
) -> None:
    assert listing_pools([_server(*locations)]) == listing
