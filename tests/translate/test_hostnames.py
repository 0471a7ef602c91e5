import pytest

from controller.ir.hostnames import covering


@pytest.mark.parametrize(
    ("hostname", "patterns"),
    [
        ("*", ["*"]),
        ("example.com", ["example.com", "*.com", "*"]),
        ("a.b.example.com", ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"]),
        ("*.example.com", ["*.example.com", "*.com", "*"]),
        ("localhost", ["localhost", "*"]),
    ],
)
def test_patterns_over_a_hostname_come_most_specific_first(hostname: str, patterns: list[str]) -> None:
    assert list(covering(hostname)) == patterns
