import argparse
import logging
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from controller.simulator.command import add_arguments, run, settings_of
from controller.simulator.settings import PodSettings

_PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


def test_pods_have_consecutive_ports_and_names() -> None:
    words = "--pods 3 --port 9001 --model m --lora x --lora y --speed 2 --headers-wait --name-prefix gpu"
    pods = settings_of(_parser().parse_args(words.split()))
    assert [(pod.name, pod.port) for pod in pods] == [("gpu-0", 9001), ("gpu-1", 9002), ("gpu-2", 9003)]
    assert pods[0] == PodSettings(name="gpu-0", port=9001, model="m", adapters=("x", "y"), speed=2, headers_wait=True)


def test_a_wrong_setting_ends_with_2(caplog: pytest.LogCaptureFixture) -> None:
    assert run(_parser().parse_args(["--speed", "0"])) == 2
    assert [(record.message, record.__dict__["setting"]) for record in caplog.records] == [("wrong setting", "speed")]


@pytest.mark.parametrize("word", ["0", "many"])
def test_there_is_at_least_one_pod(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--pods", word])
    assert f"argument --pods: {word} is not a number of at least 1" in capsys.readouterr().err


def test_the_command_serves_until_it_is_interrupted(caplog: pytest.LogCaptureFixture) -> None:
    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()

    logger = logging.getLogger("controller.simulator.command")
    caplog.set_level(logging.INFO)
    interrupt = Interrupt()
    logger.addHandler(interrupt)
    try:
        assert run(_parser().parse_args(["--port", "0"])) == 0
    finally:
        logger.removeHandler(interrupt)
    (record,) = caplog.records
    assert record.message == "pod ready"
    assert record.__dict__["address"].startswith("127.0.0.1:")


def test_the_page_lists_every_option_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \| (.*?) \|$", _PAGE.read_text(), re.MULTILINE)
    options = [
        (action.option_strings[0], _shown(action.default), action.help)
        for action in _parser()._actions
        if action.dest != "help"
    ]
    assert rows == options


def _shown(default: object) -> str:
    return "" if default is False or default == [] else f"`{default}`"
