"""Which regular expressions of users are taken, and what becomes of them."""

import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.topology.conditions import Condition
from controller.topology.expressions import LONGEST, expression

TAKEN = [
    ("abc", "abc"),
    ("/v[0-9]+/.*", "/v[0-9]+/.*"),
    ("(a|b)c", "(?:a|b)c"),
    ("((a)(b))", "(?:(?:a)(?:b))"),
    ("(?:a)", "(?:a)"),
    ("(?i)abc", "(?i)abc"),
    ("(?i:abc)d", "(?i:abc)d"),
    ("(?=a)(?!b)(?>c)", "(?=a)(?!b)(?>c)"),
    ("^a$", "^a$"),
    ("a{2}b{2,}c{2,5}", "a{2}b{2,}c{2,5}"),
    ("a*?b++c??", "a*?b++c??"),
    (r"\d\w\s\.\/\-\(\)", r"\d\w\s\.\/\-\(\)"),
    (r"\x41\t", r"\x41\t"),
    ("[]a]", r"[\]a]"),
    ("[^]a]", r"[^\]a]"),
    ("[[:alpha:]_]", "[[:alpha:]_]"),
    ("[[:^digit:]]", "[[:^digit:]]"),
    ("[a[b]", r"[a\[b]"),
    ("[a-]", r"[a\-]"),
    ("[(]|[)]", "[(]|[)]"),
    ("x}", r"x\}"),
    ("x]", r"x\]"),
    ("a;b # c", "a;b # c"),
    ("é+", "(?:é)+"),
    ("$request_uri", "$request_uri"),
]

REFUSED = [
    ("", "empty"),
    ("a)|(b", "closes nothing"),
    ("(a", "not closed"),
    ("(?:(?:a)", "not closed"),
    ("a\\", "escapes nothing"),
    ("[", "not closed"),
    ("[]", "not closed"),
    ("[a\\]", "not closed"),
    ("[[:alpha:]", "not closed"),
    ("[z-a]", "out of order"),
    (r"[\d-z]", "out of order"),
    ("[[:letters:]]", "POSIX"),
    ("[[.a.]]", "POSIX"),
    ("[:alpha:]", "POSIX"),
    ("[é]", "outside ASCII"),
    ("a(?#", "comment"),
    ("(?#x)a", "comment"),
    ("(*ACCEPT)a", "verb"),
    ("(*UTF8)a", "verb"),
    ("(?<n>a)", "named group"),
    ("(?P<n>a)", "named group"),
    ("(?'n'a)", "named group"),
    ("(?P=n)", "named group"),
    ("(?<=a)b", "look-behind"),
    ("(?<!a)b", "look-behind"),
    ("(?(1)a|b)", "conditional"),
    ("(?|(a)|(b))", "branch reset"),
    ("(?C1)a", "callout"),
    ("(?R)", "recursion"),
    ("(?1)", "may follow"),
    ("(?&n)", "recursion"),
    ("(?-1)", "recursion"),
    ("(?x)a b", "may follow"),
    ("(?s)a", "may follow"),
    ("(?-i)a", "inline flag"),
    ("(?", "may follow"),
    (r"(a)\1", "backreference"),
    (r"(a)\g{1}", "backreference"),
    (r"\k<n>", "backreference"),
    (r"\Qa.b\E", r"\Q"),
    (r"\E", r"\Q"),
    (r"\0", "backreference"),
    (r"\x", "hexadecimal"),
    (r"\x0", "hexadecimal"),
    (r"\x00", "hexadecimal"),
    (r"\x{41}", "hexadecimal"),
    (r"\p{L}", "bytes"),
    (r"\K", "not supported"),
    (r"\C", "not supported"),
    (r"\cA", "not supported"),
    (r"[\b]", "character class"),
    ("a\nb", "control character"),
    ("a\rb", "control character"),
    ("a\0b", "control character"),
    ("a\x7fb", "control character"),
    ("*a", "nothing that can be repeated"),
    ("a|+", "nothing that can be repeated"),
    ("a**", "nothing that can be repeated"),
    ("^*", "nothing that can be repeated"),
    ("(?=a)*", "nothing that can be repeated"),
    ("a{", "opens a repeat"),
    ("a{,3}", "opens a repeat"),
    ("{2}", "nothing that can be repeated"),
    ("a{3,2}", "in order"),
    ("a{1001}", "at most 1000"),
    ("((a{1000}b){1000}){1000}", "too large"),
    ("(" * 40 + "a" + ")" * 40, "nested"),
    ("a" * (LONGEST + 1), "longer"),
]


@pytest.mark.parametrize(("text", "normalised"), TAKEN)
def test_expression_is_taken_without_captures(text: str, normalised: str) -> None:
    assert expression(text) == normalised


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_expression_is_refused_with_its_reason(text: str, reason: str) -> None:
    found = expression(text)

    assert isinstance(found, Condition)
    assert (found.type, found.status, found.reason) == ("Accepted", False, "UnsupportedValue")
    assert reason in found.message


PIECES = st.sampled_from(
    [
        *"ac()[]{}*+?|^$\\.-,:=#/ ",
        *("(?:", "(?i)", "(?=", "{2}", "[^", "\\d", "\\(", "\\)", "\\x41", "[a-z]", "[]]", "[^]]", "(?#", "(*", "é"),
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
@example("[(?i)]")
@example("\\[(?i)a]")
@settings(max_examples=500, deadline=None)
def test_accepted_expression_stays_in_its_group(text: str) -> None:
    found = expression(text)
    if isinstance(found, Condition):
        return
    # The one thing that these pieces form and Python reads otherwise. What is escaped, or in a set, begins no flags.
    plain = re.sub(r"(\\.|\[(?:\\.|[^\]\\])*\])|\(\?i\)", lambda part: part[1] or "", found, flags=re.DOTALL)
    with warnings.catch_warnings():
        # Python may give `||` and the like in a set another meaning one day.
        warnings.simplefilter("ignore", FutureWarning)
        alone = re.compile(plain)
        inside = re.compile(f"(?:{plain})(END)")

    assert alone.groups == 0
    assert inside.groups == 1


def test_matches_stay_the_same() -> None:
    normalised = expression(r"/(v1|v2)/[[:alnum:]-]+(\.json)?")

    assert isinstance(normalised, str)
    assert re.fullmatch(normalised.replace("[:alnum:]", "a-z0-9"), "/v2/ab-1.json")
