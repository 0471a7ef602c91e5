"""What a picker may change, and where it may send a request."""

import pytest

from controller.extproc.messages import ENDPOINT_KEY, Action, Changes, SetHeader
from controller.relay.changes import (
    changed,
    destinations,
    length_of,
    normal,
    ordinary,
    status_of,
    target_of,
    within,
    without_named,
)

FIELDS = [(b"host", b"h"), (b"a", b"1"), (b"a", b"2"), (b"b", b"3")]
CASES = [
    (Changes(set=(SetHeader("a", b"x"),)), [(b"host", b"h"), (b"b", b"3"), (b"a", b"x")]),
    (Changes(set=(SetHeader("a", b"x", Action.APPEND),)), [*FIELDS, (b"a", b"x")]),
    (Changes(set=(SetHeader("a", b"x", Action.ADD_IF_ABSENT),)), FIELDS),
    (Changes(set=(SetHeader("c", b"x", Action.ADD_IF_ABSENT),)), [*FIELDS, (b"c", b"x")]),
    (Changes(set=(SetHeader("c", b"x", Action.OVERWRITE_IF_EXISTS),)), FIELDS),
    (Changes(remove=("a", "host", "c")), [(b"host", b"h"), (b"b", b"3")]),
    (Changes(set=(SetHeader("a", b"x", Action.APPEND),), remove=("a",)), [FIELDS[0], FIELDS[3], (b"a", b"x")]),
]


@pytest.mark.parametrize(("changes", "expected"), CASES)
def test_headers_change_as_asked(changes: Changes, expected: list[tuple[bytes, bytes]]) -> None:
    assert changed(FIELDS, changes) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", b"x"),
        ("content-length", b"1"),
        ("transfer-encoding", b"chunked"),
        ("connection", b"close"),
        ("x-accel-redirect", b"/secret"),
        ("x-infergate-then", b"@x"),
        ("x-gateway-destination-endpoint", b"10.0.0.1:80"),
        ("x_infergate-pick", b"7.000"),
        ("x_gateway_destination_endpoint", b"10.0.0.1:80"),
        (":method", b"GET"),
        ("a b", b"x"),
        ("", b"x"),
        ("ä", b"x"),
        ("x", b"a\r\nb: c"),
        ("x", b"a\0"),
    ],
)
def test_what_is_not_a_pickers_to_change_stays(name: str, value: bytes) -> None:
    assert changed(FIELDS, Changes(set=(SetHeader(name, value),))) == FIELDS


@pytest.mark.parametrize(
    ("path", "target"), [(b"/b?c", b"/b?c"), (b"b", b"/a"), (b"/b c", b"/a"), (b"/b\r\n", b"/a"), (b"", b"/a")]
)
def test_path_is_changed_to_a_path_only(path: bytes, target: bytes) -> None:
    assert target_of(Changes(set=(SetHeader(":path", path),)), b"/a") == target


@pytest.mark.parametrize(
    ("value", "status"),
    [(b"200", 200), (b"599", 599), (b"101", 404), (b"600", 404), (b"20", 404), (b"x", 404), (b"", 404)],
)
def test_status_is_changed_to_one_of_an_answer(value: bytes, status: int) -> None:
    assert status_of(Changes(set=(SetHeader(":status", value),)), 404) == status


@pytest.mark.parametrize(("value", "length"), [(b"12", 12), (b"-1", None), (b"x", None), (b"9" * 20, None)])
def test_length_is_a_number(value: bytes, length: int | None) -> None:
    assert length_of(Changes(set=(SetHeader("content-length", value),))) == length


def test_endpoints_are_compared_in_one_spelling() -> None:
    header = Changes(set=(SetHeader(ENDPOINT_KEY, b"[FD00:0:0::1]:80, 10.0.0.1:80,[fd00::2]:80"),))
    named = destinations(header, {})
    assert within(named, {"[fd00::1]:80", "10.0.0.1:81"}) == ["[fd00::1]:80"]


def test_header_counts_before_metadata() -> None:
    header = Changes(set=(SetHeader(ENDPOINT_KEY, b"10.0.0.1:80"),))
    metadata = {"envoy.lb": {ENDPOINT_KEY: "10.0.0.2:80"}}
    assert destinations(header, metadata) == ("10.0.0.1:80",)
    assert destinations(Changes(), metadata) == ("10.0.0.2:80",)


@pytest.mark.parametrize("address", ["10.0.0.1:80", "[::1]:80", "nonsense", "[nonsense]:80", ""])
def test_spelling_of_what_is_no_other_stays(address: str) -> None:
    assert normal(address) == address


def test_headers_that_connection_names_do_not_pass() -> None:
    given = [
        (b"connection", b"Close, X-Hop"),
        (b"x-hop", b"1"),
        (b"x-a", b"1"),
        (b"connection", b"x-other"),
        (b"x-other", b""),
    ]
    assert ordinary(given) == [(b"x-a", b"1")]
    assert ordinary([(b"connection", b"content-length"), (b"content-length", b"2")]) == [(b"content-length", b"2")]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (b"x-a", b"b"),
        (b"close, X-A ,x-b", b""),
        (b"x-a,x-b;x-b", b"b"),
        (b"x-c;x-a", b"ab"),
        (b";x-a", b"ab"),
        (b"content-length, host, x-forwarded-for, x-real-ip", b"ab"),
    ],
)
def test_headers_that_a_client_names_are_left_out_but_for_those_of_the_gateway(said: bytes, left: bytes) -> None:
    own = [(b"host", b"h"), (b"content-length", b"1"), (b"x-forwarded-for", b"f"), (b"x-real-ip", b"r")]
    fields = [*own, (b"x-a", b"a"), (b"x-b", b"b")]
    assert without_named(fields, said) == [*own, *(item for item in fields if item[1] in [left[:1], left[1:]])]
