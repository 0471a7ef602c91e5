"""What becomes of the rules of a route, and what is reported of them."""

from collections.abc import Callable

import pytest

from controller.ir.filters import PrefixPath, Rewrite
from controller.ir.types import Rule, ToStatus
from controller.resources.gateway_api import CONTROLLER_NAME, HTTPRoute, HTTPRouteMatch
from controller.resources.snapshot import Snapshot, snapshot
from controller.topology.build import build
from controller.topology.types import Condition, RouteState, Topology

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]

GATEWAY = """
kind: Gateway
metadata: {name: web}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""

GOOD = "{matches: [{path: {value: /good}}]}"
FILTER = "{type: ExtensionRef, extensionRef: {group: example.com, kind: X, name: x}}"
EXTENSION = "{matches: [{path: {value: /extended}}], filters: [" + FILTER + "]}"
REGEX = "{matches: [{path: {value: '(', type: RegularExpression}}, {path: {value: /else}}]}"


def _route(*rules: str, more: str = "") -> str:
    items = "".join(f"\n  - {item}" for item in rules)
    return (
        f"kind: HTTPRoute\nmetadata: {{name: cart}}\nspec:\n  parentRefs: [{{name: web}}]\n  {more}\n  rules:{items}\n"
    )


def _state(build: Build, *rules: str, more: str = "") -> RouteState:
    return build(_route(*rules, more=more)).routes[0]


def _conditions(route: RouteState) -> dict[str, Condition]:
    return {item.type: item for item in route.parents[0].conditions}


def _answers_500(rule: Rule) -> bool:
    return any(isinstance(item.target, ToStatus) and item.target.status == 500 for item in rule.backends)


def test_sound_route_is_accepted_with_all_its_cases(build_web: Build) -> None:
    route = _state(build_web, "{name: one, matches: [{path: {value: /a}}, {path: {value: /b}}]}", GOOD)
    found = [(case.match.path.value, case.rule.id, case.rule.name) for case in route.cases]

    assert found == [("/a", "shop/cart/0", "one"), ("/b", "shop/cart/0", "one"), ("/good", "shop/cart/1", "")]
    assert set(_conditions(route)) == {"Accepted", "ResolvedRefs"}
    assert route.created == "1970-01-01T00:00:00Z shop/cart"


def test_routes_of_one_age_are_ordered_by_namespace_and_name_as_one_text(build_web: Build) -> None:
    text = "kind: HTTPRoute\nmetadata: {name: x, namespace: NAME}\nspec: {parentRefs: [{name: web, namespace: shop}]}\n"
    routes = build_web(*(text.replace("NAME", name) for name in ("team", "team-a"))).routes
    assert [item.key.path for item in sorted(routes, key=lambda item: item.created)] == ["team-a/x", "team/x"]


@pytest.mark.parametrize("rules", ["", "rules: [{}]", "rules: [{matches: []}]", "rules: [{matches: [{}]}]"])
def test_rule_without_matches_catches_everything(build_web: Build, rules: str) -> None:
    text = f"kind: HTTPRoute\nmetadata: {{name: cart}}\nspec:\n  parentRefs: [{{name: web}}]\n  {rules}\n"
    assert [case.match.path.value for case in build_web(text).routes[0].cases] == [""]


@pytest.mark.parametrize("bad", [EXTENSION, REGEX])
def test_bad_rule_answers_500_and_the_others_serve(build_web: Build, bad: str) -> None:
    route = _state(build_web, GOOD, bad)
    conditions = _conditions(route)

    assert conditions["Accepted"].status is True
    assert (conditions["PartiallyInvalid"].status, conditions["PartiallyInvalid"].reason) == (True, "UnsupportedValue")
    assert conditions["PartiallyInvalid"].message.startswith("Dropped Rule 1, which answers 500: rules[1].")
    assert [_answers_500(case.rule) for case in route.cases] == [False, True]


def test_rule_of_whose_matches_none_is_left_does_not_say_that_it_answers(build_web: Build) -> None:
    bad = "{matches: [{queryParams: [{type: RegularExpression, name: a-b, value: x}]}]}"
    route = _state(build_web, GOOD, bad)
    assert [case.match.path.value for case in route.cases] == ["/good"]
    message = _conditions(route)["PartiallyInvalid"].message
    assert message.startswith("Dropped Rule 1, which matches nothing, so other rules have its requests: rules[1].")


@pytest.mark.parametrize("bad", [EXTENSION, REGEX])
def test_route_without_good_rules_is_not_accepted_and_answers_500(build_web: Build, bad: str) -> None:
    topology = build_web(_route(bad))
    conditions = _conditions(topology.routes[0])

    assert (conditions["Accepted"].status, conditions["Accepted"].reason) == (False, "UnsupportedValue")
    assert "PartiallyInvalid" not in conditions
    assert topology.routes[0].parents[0].listeners == (("http", ("*",)),)
    assert all(_answers_500(case.rule) for case in topology.routes[0].cases)
    assert topology.gateways[0].listeners[0].attached_routes == 0


SHARES = "{backendRefs: [{name: a, port: 80, filters: [" + FILTER + "]}, {name: b, port: 80, weight: %d}]}"
SERVICES = "\n---\n".join(
    f"kind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}" for name in "ab"
)


def test_backend_with_an_unsupported_filter_answers_500_for_its_share(build_web: Build) -> None:
    route = build_web(_route(SHARES % 1), SERVICES).routes[0]
    message = _conditions(route)["PartiallyInvalid"].message

    assert message.startswith("Dropped Rule 0 in part, the share answers 500: rules[0].backendRefs[0].filters[0].type")
    targets = [item.target for item in route.cases[0].rule.backends]
    assert [target.status for target in targets if isinstance(target, ToStatus)] == [500, 503]
    assert _conditions(route)["Accepted"].status is True


def test_rule_whose_every_share_is_dropped_is_dropped(build_web: Build) -> None:
    route = build_web(_route(SHARES % 0), SERVICES).routes[0]
    assert _conditions(route)["Accepted"].reason == "UnsupportedValue"


REWRITE = "{type: URLRewrite, urlRewrite: {hostname: inner.example}}"
REDIRECT = "{type: RequestRedirect, requestRedirect: {hostname: new.example}}"


def test_redirect_of_a_backend_does_not_go_with_a_rewrite_of_its_rule(build_web: Build) -> None:
    refs = "[{name: a, port: 80, filters: [" + REDIRECT + "]}, {name: b, port: 80, weight: %d}]"
    rule = "{filters: [" + REWRITE + "], backendRefs: " + refs + "}"
    partly, wholly = (build_web(_route(rule % weight), SERVICES).routes[0] for weight in (1, 0))

    assert [_answers_500(case.rule) for case in partly.cases] == [True]
    assert _conditions(partly)["PartiallyInvalid"].message == (
        "Dropped Rule 0 in part, the share answers 500: "
        "rules[0].backendRefs[0].filters accepts no RequestRedirect beside the URLRewrite of its rule"
    )
    assert _conditions(wholly)["Accepted"].reason == "IncompatibleFilters"


MIRROR = "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}"
REDIRECTED = "{name: a, port: 80, filters: [" + REDIRECT + "]}"
UNCOPIED = [
    ("{filters: [" + REDIRECT + ", " + MIRROR + "]}", "rules[0].filters[1].requestMirror beside RequestRedirect"),
    (
        "{filters: [" + MIRROR + "], backendRefs: [" + REDIRECTED + ", {name: b, port: 80}]}",
        "rules[0].filters[0].requestMirror for backendRefs[0], which has a RequestRedirect",
    ),
    (
        "{backendRefs: [{name: b, port: 80}, {name: a, port: 80, filters: [" + MIRROR + ", " + REDIRECT + "]}]}",
        "rules[0].backendRefs[1].filters[0].requestMirror beside RequestRedirect",
    ),
]


@pytest.mark.parametrize(("rule", "name"), UNCOPIED)
def test_mirror_beside_a_redirect_is_named(build_web: Build, rule: str, name: str) -> None:
    conditions = _conditions(build_web(_route(rule), SERVICES).routes[0])

    assert conditions["Accepted"].status is True
    assert conditions["infergate.dev/IgnoredFields"].message == f"not supported yet and without effect: {name}"


def test_mirror_beside_a_redirect_of_another_share_is_not_named(build_web: Build) -> None:
    rule = "{backendRefs: [" + REDIRECTED + ", {name: b, port: 80, filters: [" + MIRROR + "]}]}"
    conditions = _conditions(build_web(_route(rule), SERVICES).routes[0])

    assert set(conditions) == {"Accepted", "ResolvedRefs"}


FIELDS = [
    ("retry: {attempts: 9}", "rules[0].retry.attempts above 6"),
    ("retry: {codes: [500, 499]}", "rules[0].retry.codes 499"),
]


@pytest.mark.parametrize(("field", "name"), FIELDS)
def test_field_that_adds_something_is_named_and_the_rule_serves(build_web: Build, field: str, name: str) -> None:
    route = _state(build_web, f"{{{field}}}")
    conditions = _conditions(route)

    assert conditions["infergate.dev/IgnoredFields"].message == f"not supported yet and without effect: {name}"
    assert conditions["Accepted"].status is True
    assert "PartiallyInvalid" not in conditions
    assert route.cases[0].rule.backends == ()


def test_default_gateways_are_named_as_unsupported(build_web: Build) -> None:
    conditions = _conditions(_state(build_web, GOOD, more="useDefaultGateways: All"))
    assert "useDefaultGateways" in conditions["infergate.dev/IgnoredFields"].message


def test_refused_parent_says_nothing_of_rules(build_web: Build) -> None:
    text = _route(GOOD, EXTENSION).replace("{name: web}", "{name: web, sectionName: missing}")
    conditions = _conditions(build_web(text).routes[0])

    assert conditions["Accepted"].reason == "NoMatchingParent"
    assert "PartiallyInvalid" not in conditions


def test_redirect_needs_no_backends(build_web: Build) -> None:
    rule = "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}"
    route = _state(build_web, rule)

    assert route.cases[0].rule.backends == ()
    assert len(route.cases[0].rule.filters) == 1


REPLACING = """
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: web}]
  rules:
  - matches: [{path: {value: /a}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]
"""


def _replacing(read: Read, *paths: str) -> RouteState:
    """A rule that replaces the prefix of several matches. The models refuse it, as the API server does."""
    everything = read(GATEWAY, REPLACING)
    (route,) = everything.of(HTTPRoute)
    (rule,) = route.spec.rules
    matches = tuple(HTTPRouteMatch.model_validate({"path": {"value": path}}) for path in paths)
    rules = (rule.model_copy(update={"matches": matches}),)
    changed = route.model_copy(update={"spec": route.spec.model_copy(update={"rules": rules})})
    others = (item for item in everything.resources if item is not route)
    return build(snapshot([*others, changed]), controller_name=CONTROLLER_NAME).routes[0]


def test_rule_that_replaces_one_prefix_is_one_rule(read: Read) -> None:
    (case,) = _replacing(read, "/a/").cases

    assert case.rule.id == "shop/cart/0"
    assert case.rule.filters == (Rewrite(path=PrefixPath("/a", "/x")),)


def test_rule_that_replaces_several_prefixes_is_split_by_match(read: Read) -> None:
    cases = _replacing(read, "/a", "/b/").cases

    assert [case.rule.id for case in cases] == ["shop/cart/0.0", "shop/cart/0.1"]
    assert [case.rule.filters for case in cases] == [
        (Rewrite(path=PrefixPath("/a", "/x")),),
        (Rewrite(path=PrefixPath("/b", "/x")),),
    ]
