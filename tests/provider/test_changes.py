from typing import Any

import pytest

from controller.provider.changes import describe
from controller.resources.kinds import read
from controller.resources.meta import Resource
from controller.resources.snapshot import Snapshot, snapshot


def made(*documents: dict[str, Any]) -> Snapshot:
    resources = [read(each, index=1) for each in documents]
    return snapshot(each for each in resources if isinstance(each, Resource))


def route(*weights: int, name: str = "chat", **spec: Any) -> dict[str, Any]:
    refs = [{"name": f"s{index}", "port": 80, "weight": weight} for index, weight in enumerate(weights)]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"rules": [{"backendRefs": refs}], **spec},
    }


def pod(ip: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "demo", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": ip}}


def secret(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": data}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ([route(1)], [route(1)], []),
        ([route(10, 90)], [route(10, 50)], ["HTTPRoute demo/chat: spec.rules[0].backendRefs[1].weight 90 -> 50"]),
        ([], [route(1)], ["+ HTTPRoute demo/chat"]),
        ([route(1)], [], ["- HTTPRoute demo/chat"]),
        (
            [route(1)],
            [route(1, hostnames=["a.b"])],
            ['HTTPRoute demo/chat: spec.hostnames[0] added: "a.b"'],
        ),
        (
            [route(1, hostnames=["a.b", "c.d"])],
            [route(1, hostnames=["a.b", "x.y", "c.d"])],
            ['HTTPRoute demo/chat: spec.hostnames[1] added: "x.y"'],
        ),
        (
            [route(1, hostnames=["a.b", "c.d"])],
            [route(1, hostnames=["c.d"])],
            ["HTTPRoute demo/chat: spec.hostnames[0] removed"],
        ),
        ([route(1, 2)], [route(1)], ["HTTPRoute demo/chat: spec.rules[0].backendRefs[1] removed"]),
        ([pod("10.0.0.1")], [pod("10.0.0.2")], ['Pod demo/x: status.podIP "10.0.0.1" -> "10.0.0.2"']),
        ([pod("10.0.0.1", a="b")], [pod("10.0.0.1", a="c")], ['Pod demo/x: metadata.labels.a "b" -> "c"']),
        ([secret(key="hunter2")], [secret(key="hunter3")], ["Secret default/s: data changed"]),
        ([secret(key="hunter2")], [secret(key="hunter2", more="hunter3")], ["Secret default/s: data changed"]),
    ],
)
def test_difference_in_words(old: list[dict[str, Any]], new: list[dict[str, Any]], lines: list[str]) -> None:
    assert describe(made(*old), made(*new)) == tuple(lines)


def test_status_that_others_write_is_no_change() -> None:
    other = {**route(1), "status": {"parents": []}}

    assert describe(made(route(1)), made(other)) == ()


def test_ten_lines_are_enough() -> None:
    new = made(*(route(1, name=f"r{number:02}") for number in range(25)))

    lines = describe(made(), new)

    assert lines[0] == "+ HTTPRoute demo/r00"
    assert lines[-1] == "and 15 more"
    assert len(lines) == 11


def test_long_values_are_cut() -> None:
    old, new = (made(route(1, hostnames=[".".join([letter * 60] * 3)])) for letter in "ab")

    [line] = describe(old, new)

    assert len(line) < 250
    assert "(182 characters)" in line
