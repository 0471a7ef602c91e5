import pytest

from controller.render.quoting import UnwritableError, comment, literal, name, regex, text

HOSTILE = ["a\tb", "\\t", '"; } server { listen 1; "', "\\", '\\"', "$request_uri", "${x}", "'", "#", ";", "{}", "é"]


def _read_by_nginx(quoted: str) -> str:
    """The argument that nginx's lexer makes of a quoted one, and `${dollar}` expanded."""
    assert quoted[0] == quoted[-1] == '"'
    result, rest = "", quoted[1:-1]
    while rest:
        if rest.startswith("\\t"):
            result, rest = result + "\t", rest[2:]
        elif rest[0] == "\\" and rest[1:2] in {'"', "'", "\\"}:
            result, rest = result + rest[1], rest[2:]
        else:
            assert rest[0] != '"'
            result, rest = result + rest[0], rest[1:]
    return result


@pytest.mark.parametrize("value", HOSTILE)
def test_text_comes_out_as_it_went_in(value: str) -> None:
    written = _read_by_nginx(text(value))
    assert "$" not in written.replace("${dollar}", "")
    assert written.replace("${dollar}", "$") == value


@pytest.mark.parametrize("value", HOSTILE)
def test_literal_comes_out_as_it_went_in(value: str) -> None:
    assert _read_by_nginx(literal(value)) == value


def test_regex_keeps_its_escapes() -> None:
    assert _read_by_nginx(regex(r"^\d+\.\z")) == r"~^\d+\.\z"


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "a\x7fb"])
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(UnwritableError):
        text(value)
    with pytest.raises(UnwritableError):
        literal(value)


def test_comment_stays_on_its_line() -> None:
    assert comment("a\n} server {") == "a } server {"


def test_names_of_different_things_differ() -> None:
    assert name("a-b/c") != name("a/b-c")
    assert name("[fd00::1]:80") == "fd00__1_80"
