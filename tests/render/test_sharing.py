"""Which rules share named locations."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from controller.ir.filters import HeaderChange, RequestHeaders
from controller.ir.policies import Timeouts
from controller.ir.types import Backend, Rule, Target, ToPool, ToStatus, ToUpstream
from controller.render.sharing import Plain, Sharing, sharing_of
from controller.resources.meta import Key

PLAIN = Plain(upstreams={"plain"}, pools={"pool"})


SERVICE = ToUpstream("plain")


def _rules(count: int, target: Target = SERVICE, name: str = "r") -> list[Rule]:
    key = Key("gateway.networking.k8s.io", "HTTPRoute", "demo", name)
    return [Rule(key, number, "", filters=(), backends=(Backend(target, weight=1),)) for number in range(count)]


def _sharing(*servers: list[Rule], apart: Iterable[str] = ()) -> Sharing:
    return sharing_of(servers, plain=PLAIN, apart=frozenset(apart))


def test_few_rules_have_locations_of_their_own() -> None:
    assert _sharing(_rules(32), _rules(32, name="other")).locations == {}


def test_many_rules_share_few_locations() -> None:
    found = _sharing(_rules(6000)).locations
    assert (len(found), len(set(found.values()))) == (6000, 128)
    assert len(set(_sharing(_rules(33)).locations.values())) <= 16


def test_rules_to_pools_are_among_themselves() -> None:
    found = _sharing([*_rules(200), *_rules(200, ToPool("pool"), name="p")]).locations
    kinds = {(rule.split("/")[1], location.split("/")[1]) for rule, location in found.items()}
    assert kinds == {("r", "services"), ("p", "pools")}


def test_rule_more_leaves_the_others_where_they_are() -> None:
    before, after = _sharing(_rules(500)).locations, _sharing(_rules(501)).locations
    assert before.items() <= after.items()


def test_rule_that_something_else_jumps_to_stays_apart() -> None:
    rules = _rules(200)
    assert _sharing(rules, apart=[rules[7].id]).locations.keys() == {rule.id for rule in rules} - {rules[7].id}


PLAIN_RULE = _rules(1)[0]


@pytest.mark.parametrize(
    "rule",
    [
        *_rules(1, ToUpstream("secured")),
        *_rules(1, ToPool("relayed")),
        *_rules(1, ToStatus(500, "gone")),
        replace(PLAIN_RULE, timeouts=Timeouts(request=1.0, backend=None)),
        replace(PLAIN_RULE, takes_calls=True),
        replace(PLAIN_RULE, backends=PLAIN_RULE.backends * 2),
        replace(PLAIN_RULE, backends=()),
        replace(PLAIN_RULE, filters=(RequestHeaders(HeaderChange()),)),
        replace(PLAIN_RULE, backends=(replace(PLAIN_RULE.backends[0], filters=(RequestHeaders(HeaderChange()),)),)),
    ],
)
def test_rule_that_needs_more_than_variables_stays_apart(rule: Rule) -> None:
    made = replace(rule, route=rule.route._replace(name="other"))
    assert made.id not in _sharing([made, *_rules(200)]).locations
