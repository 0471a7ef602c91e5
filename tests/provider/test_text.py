import pytest

from controller.provider.text import Malformed, check_characters, is_text, split


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("a: b\n", [(0, "a: b\n")]),
        ("---\na: b\n", [(0, "---\na: b\n")]),
        ("a: b\n---\nc: d\n", [(0, "a: b\n"), (1, "---\nc: d\n")]),
        ("---\na: b\n---\n", [(0, "---\na: b\n")]),
        ("# text\n---\n# more\n\n---\na: b\n", [(4, "---\na: b\n")]),
        ("--- a\n--- # no\n--- b\n", [(0, "--- a\n"), (2, "--- b\n")]),
        ("--- |\n text\n", [(0, "--- |\n text\n")]),
        ("---\r\na: b\r\n---\r\nc: d\r\n", [(0, "---\r\na: b\r\n"), (2, "---\r\nc: d\r\n")]),
        ("a: b\n...\n# text\n---\nc: d\n", [(0, "a: b\n"), (3, "---\nc: d\n")]),
        ("a: b\n...\nc: d\n", [(0, "a: b\n"), (2, "c: d\n")]),
        ("%YAML 1.1\n---\na: b\n---\nc: d\n", [(0, "%YAML 1.1\n---\na: b\n"), (3, "---\nc: d\n")]),
        ("a: b\n...\n%YAML 1.1\n---\nc: d\n", [(0, "a: b\n"), (2, "%YAML 1.1\n---\nc: d\n")]),
        ("---a: b\n----\n", [(0, "---a: b\n----\n")]),
        ('a: "\n--- b"\nc: d\n', [(0, 'a: "\n'), (1, '--- b"\nc: d\n')]),
        ("a: |\n ---\n b\n", [(0, "a: |\n ---\n b\n")]),
        ("---\na: b\n---", [(0, "---\na: b\n")]),
        ("", []),
        ("\n  \n\t\n# text\n", []),
    ],
)
def test_stream_is_split_at_markers(text: str, documents: list[tuple[int, str]]) -> None:
    assert list(split(text)) == documents


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a\nb\0", "character U+0000 is not allowed", 1),
        ("a\n\nb\udcff", "invalid UTF-8: byte 0xff", 2),
        ("\x1b[31m", "character U+001B is not allowed", 0),
    ],
)
def test_character_that_no_document_may_hold_is_told(text: str, message: str, line: int) -> None:
    with pytest.raises(Malformed) as caught:
        check_characters(text)

    assert (caught.value.message, caught.value.line) == (message, line)


@pytest.mark.parametrize(
    ("value", "answer"), [("a", True), ("ä😀", True), ("a\0", False), ("ä\0", False), ("\ud83d", False)]
)
def test_text_can_be_written_as_utf8(value: str, answer: bool) -> None:
    assert is_text(value) is answer
