"""ListenerSets: who is let in, whose listener wins, and what routes attach to."""

from collections.abc import Callable

import pytest

from controller.resources.snapshot import Snapshot
from controller.topology.sharing import shared
from controller.topology.types import Condition, GatewayState, Topology

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]

HTTP = "{name: http, port: 80, protocol: HTTP, hostname: web.example}"


def _gateway(listeners: str = HTTP, *, name: str = "web", allowed: str = "{from: All}", age: int = 0) -> str:
    return f"""
    kind: Gateway
    metadata: {{name: {name}, creationTimestamp: "2026-01-01T00:00:{age:02}Z"}}
    spec:
      gatewayClassName: infergate
      allowedListeners: {{namespaces: {allowed}}}
      listeners: [{listeners}]
    """


def _set(name: str, *listeners: str, age: int = 0, namespace: str = "shop", gateway: str = "web") -> str:
    return f"""
    kind: ListenerSet
    metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2026-02-01T00:00:{age:02}Z"}}
    spec:
      parentRef: {{name: {gateway}, namespace: shop}}
      listeners: [{", ".join(listeners)}]
    """


def _listener(name: str, hostname: str = "", *, port: int = 80, protocol: str = "HTTP") -> str:
    host = f", hostname: {hostname}" if hostname else ""
    return f"{{name: {name}, port: {port}, protocol: {protocol}{host}}}"


def _verdict(conditions: tuple[Condition, ...], type_: str = "Accepted") -> str:
    return next(f"{item.status}/{item.reason}" for item in conditions if item.type == type_)


def _sets(topology: Topology) -> dict[str, str]:
    return {item.key.name: _verdict(item.conditions) for item in topology.listener_sets}


def _served(gateway: GatewayState) -> list[str]:
    return [f"{item.owner.name}/{item.name}" for item in gateway.listeners if item.serves]


LABELLED = "kind: Namespace\nmetadata: {name: other, labels: {team: a}}\n"

ALLOWED = [
    ("{from: All}", "True/Accepted", "True/Accepted"),
    ("{from: Same}", "True/Accepted", "False/NotAllowed"),
    ("{from: None}", "False/NotAllowed", "False/NotAllowed"),
    ("{}", "False/NotAllowed", "False/NotAllowed"),
    ("{from: Selector, selector: {matchLabels: {team: a}}}", "False/NotAllowed", "True/Accepted"),
    ("{from: Selector}", "False/NotAllowed", "False/NotAllowed"),
]


@pytest.mark.parametrize(("allowed", "near", "far"), ALLOWED)
def test_gateway_says_which_namespaces_it_lets_in(build_all: Build, allowed: str, near: str, far: str) -> None:
    topology = build_all(
        _gateway(allowed=allowed),
        LABELLED,
        _set("near", _listener("a", "near.example")),
        _set("far", _listener("a", "far.example"), namespace="other"),
    )

    assert _sets(topology) == {"near": near, "far": far}
    assert len(topology.gateways[0].listeners) == 1 + (near, far).count("True/Accepted")


def test_gateway_that_says_nothing_lets_no_set_in(build_web: Build) -> None:
    assert _sets(build_web(_set("near", _listener("a", "near.example")))) == {"near": "False/NotAllowed"}


def test_set_of_a_gateway_that_is_not_ours_is_none_of_ours(build_web: Build) -> None:
    assert build_web(_set("near", _listener("a"), gateway="other")).listener_sets == ()


def test_listeners_of_sets_follow_by_age_then_by_name(build_all: Build) -> None:
    (gateway,) = build_all(
        _set("young", _listener("a", "young.example"), age=2),
        _set("b", _listener("a", "b.example"), age=1),
        _set("a", _listener("a", "a.example"), age=1),
        _gateway(),
    ).gateways

    assert _served(gateway) == ["web/http", "a/a", "b/a", "young/a"]


def test_hostname_belongs_to_the_gateway_then_to_the_older_set(build_all: Build) -> None:
    topology = build_all(
        _gateway(),
        _set("old", _listener("lost", "web.example"), _listener("won", "x.example"), age=1),
        _set("young", _listener("lost", "x.example"), age=2),
    )

    assert _served(topology.gateways[0]) == ["web/http", "old/won"]
    assert _sets(topology) == {"old": "True/ListenersNotValid", "young": "False/ListenersNotValid"}
    lost = [item for item in topology.gateways[0].listeners if item.name == "lost"]
    assert {_verdict(item.conditions, "Conflicted") for item in lost} == {"True/HostnameConflict"}
    assert {_verdict(item.conditions) for item in lost} == {"False/HostnameConflict"}


@pytest.mark.parametrize("protocol", ["HTTPS", "TCP"])
def test_port_keeps_the_protocol_that_it_has_first(build_all: Build, protocol: str) -> None:
    tls = _listener("lost", port=80, protocol=protocol)
    (gateway,) = build_all(
        _gateway(), _set("old", tls, age=1), _set("young", _listener("won", "x.example"), age=2)
    ).gateways

    assert _served(gateway) == ["web/http", "young/won"]
    assert _verdict(gateway.listeners[1].conditions, "Conflicted") == "True/ProtocolConflict"


def test_listener_that_lost_its_port_takes_no_other_of_its_set_with_it(build_all: Build) -> None:
    lost, won = _listener("lost", port=80, protocol="TCP"), _listener("won", "x.example")
    topology = build_all(_gateway(), _set("own", lost, won))

    assert _served(topology.gateways[0]) == ["web/http", "own/won"]


def test_listeners_of_one_set_that_conflict_all_lose(build_all: Build) -> None:
    plain, secure = _listener("plain", port=81), _listener("secure", port=81, protocol="HTTPS")
    topology = build_all(_gateway(), _set("own", plain, secure))

    assert _served(topology.gateways[0]) == ["web/http"]
    assert _sets(topology) == {"own": "False/ListenersNotValid"}


def test_set_does_not_change_what_is_said_of_its_gateway(build_all: Build) -> None:
    alone = build_all(_gateway()).gateways[0]
    (beside,) = build_all(_gateway(), _set("bad", _listener("tcp", port=81, protocol="UDP"))).gateways

    assert beside.conditions == alone.conditions


def test_set_cannot_make_up_for_a_gateway_that_is_not_accepted(build_all: Build) -> None:
    topology = build_all(_gateway("{name: a, port: 80, protocol: none/own}"), _set("own", _listener("a", port=81)))

    assert _sets(topology) == {"own": "False/ParentNotAccepted"}
    assert _served(topology.gateways[0]) == []


def _route(*parents: str) -> str:
    return f"""
    kind: HTTPRoute
    metadata: {{name: cart}}
    spec: {{parentRefs: [{", ".join(parents)}], rules: [{{}}]}}
    """


@pytest.mark.parametrize(
    ("parent", "accepted", "attached"),
    [
        ("{name: web}", "True/Accepted", {"web/http": 1, "own/http": 0, "own/more": 0}),
        ("{kind: ListenerSet, name: own}", "True/Accepted", {"web/http": 0, "own/http": 1, "own/more": 1}),
        (
            "{kind: ListenerSet, name: own, sectionName: more}",
            "True/Accepted",
            {"web/http": 0, "own/http": 0, "own/more": 1},
        ),
        ("{name: web, sectionName: more}", "False/NoMatchingParent", {"web/http": 0, "own/http": 0, "own/more": 0}),
        ("{name: web, port: 81}", "False/NoMatchingParent", {"web/http": 0, "own/http": 0, "own/more": 0}),
    ],
)
def test_route_attaches_to_what_it_names(
    build_all: Build, parent: str, accepted: str, attached: dict[str, int]
) -> None:
    own = _set("own", _listener("http", "own.example"), _listener("more", port=81))
    topology = build_all(_gateway(), own, _route(parent))

    assert _verdict(topology.routes[0].parents[0].conditions) == accepted
    listeners = topology.gateways[0].listeners
    assert {f"{item.owner.name}/{item.name}": item.attached_routes for item in listeners} == attached


def test_route_on_a_set_that_is_not_let_in_has_no_parent(build_web: Build) -> None:
    topology = build_web(_set("own", _listener("a")), _route("{kind: ListenerSet, name: own}"))

    assert _verdict(topology.routes[0].parents[0].conditions) == "False/NoMatchingParent"


def test_set_loses_to_an_older_gateway_on_the_same_machine(read: Read, build_all: Build) -> None:
    old = _gateway(_listener("http", "own.example"), name="old", age=1)
    texts = (old, _gateway(age=2), _set("own", _listener("http", "own.example")))
    topology = shared(build_all(*texts), snapshot=read(*texts))

    assert _sets(topology) == {"own": "False/ListenersNotValid"}
