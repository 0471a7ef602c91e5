import json
import logging
from collections.abc import Iterator

import pytest

from controller import logs


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _line(style: str, capsys: pytest.CaptureFixture[str]) -> str:
    logs.configure(style)
    logging.getLogger("x").warning("bundle %s", "applied", extra={"gateway": "a b", "seconds": 0.25, "empty": ""})
    return capsys.readouterr().err


def test_text_has_time_level_message_and_details(capsys: pytest.CaptureFixture[str]) -> None:
    assert _line("text", capsys)[13:] == 'WARNING bundle applied  gateway="a b" seconds=0.2 empty=""\n'


def test_bare_leaves_the_time_to_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert _line("bare", capsys).startswith("WARNING bundle applied  ")


def test_json_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_line("json", capsys))
    assert (found["level"], found["message"], found["gateway"]) == ("warning", "bundle applied", "a b")
