"""Names of certificates against the wanted ones."""

import pytest

from controller.alt_names import Presented, is_known

FACTS: list[tuple[Presented, list[str], list[str], bool]] = [
    ((("DNS", "a.example"),), ["a.example"], [], True),
    ((("DNS", "A.Example"),), ["a.example"], [], True),
    ((("DNS", "*.example.com"),), ["a.example.com"], [], True),
    ((("DNS", "*.example.com"),), ["a.b.example.com"], [], False),
    ((("DNS", "*.example.com"),), ["example.com"], [], False),
    ((("DNS", "a.example.com"),), ["*.example.com"], [], True),
    ((("DNS", "a.b.example.com"),), ["*.example.com"], [], False),
    ((("DNS", "*.example.com"),), ["*.example.com"], [], True),
    ((("DNS", "*.b.example.com"),), ["*.example.com"], [], False),
    ((("DNS", "*"),), ["a"], [], False),
    ((("DNS", "a.example\0.other"),), ["a.example"], [], False),
    ((("URI", "spiffe://a/b"),), [], ["spiffe://a/b"], True),
    ((("URI", "spiffe://A/b"),), [], ["spiffe://a/b"], False),
    ((("URI", "spiffe://a/b"),), ["spiffe://a/b"], [], False),
    ((("DNS", "a.example"),), [], ["a.example"], False),
    ((("IP Address", "10.0.0.1"), ("DNS", "x.example")), ["10.0.0.1"], [], False),
    ((("DNS", "x.example"), ("URI", "spiffe://a/b")), ["y.example"], ["spiffe://a/b"], True),
    ((), ["a.example"], ["spiffe://a/b"], False),
]


@pytest.mark.parametrize(("presented", "hostnames", "uris", "known"), FACTS)
def test_one_name_of_the_right_kind_is_enough(
    presented: Presented, hostnames: list[str], uris: list[str], known: bool
) -> None:
    assert is_known(presented, hostnames=hostnames, uris=uris) is known
