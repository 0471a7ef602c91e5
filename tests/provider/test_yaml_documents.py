import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.provider.json_documents import JsonValue, load_json
from controller.provider.text import Malformed
from controller.provider.yaml_documents import PARSER, Parser, lines_of, load_yaml, plain

PARSERS = pytest.mark.parametrize("parser", [PARSER, yaml.SafeLoader], ids=["c", "python"])

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(  # Any: what JSON can hold
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("yes", True),
        ("off", False),
        ("True", True),
        ("y", "y"),
        ("80", 80),
        ("-1", -1),
        ("1_000", 1000),
        ("0", 0),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("-0b11", -3),
        ("08", 8.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("12:30", "12:30"),
        ("2025-01-31", "2025-01-31"),
        ("2025-01-31T12:00:00Z", "2025-01-31T12:00:00Z"),
        ("10s", "10s"),
        ("-", "-"),
        (".", "."),
        ("0x", "0x"),
        ("=", "="),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalar_means(text: str, value: object) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)


@PARSERS
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 'yes'", {"a": "yes"}),
        ('a: "80"', {"a": "80"}),
        ("80: a", {"80": "a"}),
        ("yes: a", {"yes": "a"}),
        ("a: |\n  80\n", {"a": "80\n"}),
        ("a: !!str 80", {"a": "80"}),
        ("a: ! 80", {"a": "80"}),
        ("a: !!int 80", {"a": 80}),
        ("a: !!float 80", {"a": 80}),
        ("!!map {a: !!seq [b]}", {"a": ["b"]}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x b\n*x : c", {"a": "b", "b": "c"}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("d: {<<: [{a: 1}, {a: 2, b: 2}]}", {"d": {"a": 1, "b": 2}}),
        ("'<<': a", {"<<": "a"}),
        ("{a: 1, b: [c, {d: e}]}", {"a": 1, "b": ["c", {"d": "e"}]}),
        ("a:\nb:\n- c", {"a": None, "b": ["c"]}),
        ("\ufeffa: b", {"a": "b"}),
        ("%YAML 1.1\n---\na: b\n", {"a": "b"}),
        ("", None),
        ("--- text", "text"),
    ],
)
def test_document_is_read(text: str, value: object, parser: Parser) -> None:
    assert load_yaml(text, parser=parser)[0] == value


@PARSERS
@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_what_json_writes_is_read_back(value: object, parser: Parser) -> None:
    text = json.dumps(value)

    assert load_json(text) == [JsonValue(value, 0, 0)]
    if isinstance(value, dict) and "\\u" not in text and "\\" not in text and "\x7f" not in text:
        assert load_yaml(text, parser=parser)[0] == value


@PARSERS
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"%#\n \t?,<"), max_size=30))
def test_any_text_is_read_or_malformed(text: str, parser: Parser) -> None:
    assert 0 <= _line(text, parser) <= text.count("\n")


@PARSERS
def test_lines_of_fields_and_items(parser: Parser) -> None:
    text = "a:\n  b: 1\n  c:\n  - d: 2\n    e: {f: 3}\n  - 4\ng: [5,\n  6]\n"

    lines = lines_of(text, parser=parser)

    assert lines == {
        ("a",): 0,
        ("a", "b"): 1,
        ("a", "c"): 2,
        ("a", "c", 0): 3,
        ("a", "c", 0, "d"): 3,
        ("a", "c", 0, "e"): 4,
        ("a", "c", 0, "e", "f"): 4,
        ("a", "c", 1): 5,
        ("g",): 6,
        ("g", 0): 6,
        ("g", 1): 7,
    }


@PARSERS
def test_line_of_the_document_is_that_of_its_first_field(parser: Parser) -> None:
    assert load_yaml("---\n# text\n\na: b\n", parser=parser) == ({"a": "b"}, 3)


@PARSERS
@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, "{a: " * 100_000, "- " * 100_000, "a:\n" + "".join(" " * n + "- \n" for n in range(1, 2000))],
)
def test_nesting_without_end_costs_little(text: str, parser: Parser) -> None:
    with pytest.raises(Malformed) as caught:
        load_yaml(text, parser=parser)

    assert caught.value.message == "nested too deeply, accepted are 100 levels"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ('{"a": 1,\n "a": 2}', 'not JSON: key "a" is there twice', 1),
        ('{"a": {"a": [\n{"b": 1}, {"b": 2,\n"\\u0062": 3}]}}', 'not JSON: key "b" is there twice', 2),
        ('{"a": 1,\n"b": NaN}', "not JSON: found NaN, accepted is a number", 1),
        ('{"a": 1,\n"b": "\\u0000"}', "a string holds NUL or half a surrogate pair", 1),
        ('{"a":\n}', "not JSON: expecting value", 1),
        ('{"a": NaN}', "not JSON: found NaN, accepted is a number", 0),
        ('{"a": "\\ud800"}', "a string holds NUL or half a surrogate pair", 0),
        ('{"a\\u0000": 1}', "a string holds NUL or half a surrogate pair", 0),
        ("[" * 200 + "]" * 200, "nested too deeply, accepted are 100 levels", 0),
        ("[" * 200_000, "nested too deeply, accepted are 100 levels", 0),
        ("{}\n\n{]", "not JSON: expecting property name enclosed in double quotes", 2),
        ('{"a": ' + "9" * 5000 + "}", "not JSON: exceeds the limit", 0),
    ],
)
def test_json_that_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(Malformed) as caught:
        load_json(text)

    assert caught.value.message.lower().startswith(message.lower())
    assert caught.value.line == line


def test_json_values_may_follow_each_other() -> None:
    found = load_json('{"a": 1}\n{"b": "\\ud83d\\ude00"}\n')
    assert found == [JsonValue({"a": 1}, 0, 0), JsonValue({"b": "😀"}, 9, 1)]


def _line(text: str, parser: Parser) -> int:
    """Line of the document, or of what is wrong with it."""
    try:
        return load_yaml(text, parser=parser)[1]
    except Malformed as error:
        return error.line
