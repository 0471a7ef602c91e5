"""The demo as its user runs it."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from controller.demo.judge import Verdict, table
from controller.demo.servers import MODEL, ModelServerFailed, model_file
from tests.ports import free_port

Start = Callable[..., subprocess.Popen[str]]
Processes = Callable[[], list[str]]
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def port() -> int:
    return free_port()


def _read_guide(process: subprocess.Popen[str]) -> str:
    """What the demo prints until it runs."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return "".join(lines)
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


@pytest.mark.nginx
@pytest.mark.usefixtures("nginx")
def test_every_scene_holds_with_simulated_servers(infergate_demo: Start, processes: Processes) -> None:
    process = infergate_demo("--check", "--simulate")
    said, logged = process.communicate(timeout=60)
    assert process.returncode == 0, said + logged
    assert "FAILED" not in said
    assert processes() == []


@pytest.mark.nginx
@pytest.mark.models
@pytest.mark.usefixtures("nginx")
def test_every_scene_holds_with_llama_cpp(infergate_demo: Start, processes: Processes) -> None:
    try:
        model_file()
    except ModelServerFailed as error:
        pytest.skip(str(error))
    process = infergate_demo("--check")
    said, logged = process.communicate(timeout=120)
    assert process.returncode == 0, said + logged
    assert "501 the model takes no audio" in said
    assert processes() == []


@pytest.mark.nginx
@pytest.mark.usefixtures("nginx")
def test_ctrl_c_leaves_no_process(infergate_demo: Start, processes: Processes, port: int) -> None:
    process = infergate_demo("--simulate", "--port", str(port))
    assert f"http://127.0.0.1:{port}" in _read_guide(process)
    assert len(processes()) > 2
    process.send_signal(signal.SIGINT)
    _, logged = process.communicate(timeout=20)
    assert (process.returncode, processes()) == (0, [])
    assert "Traceback" not in logged


@pytest.mark.nginx
@pytest.mark.usefixtures("nginx")
def test_ctrl_c_does_not_wait_for_a_stream(infergate_demo: Start, processes: Processes, port: int) -> None:
    process = infergate_demo("--simulate", "--port", str(port))
    _read_guide(process)
    question = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 9000}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with httpx.stream("POST", url, json=question | {"ignore_eos": True}, trust_env=False) as answer:
        next(answer.iter_raw())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
    assert (process.returncode, processes()) == (0, [])


@pytest.mark.nginx
@pytest.mark.usefixtures("nginx")
def test_a_killed_demo_leaves_no_process(infergate_demo: Start, processes: Processes, until: Until, port: int) -> None:
    options = () if _has_models() else ("--simulate",)
    process = infergate_demo("--port", str(port), *options)
    _read_guide(process)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: processes() == [])


@pytest.mark.nginx
@pytest.mark.usefixtures("nginx")
def test_a_second_demo_leaves_the_directory_alone(infergate_demo: Start, tmp_path: Path, port: int) -> None:
    _read_guide(infergate_demo("--simulate", "--port", str(port)))
    endpoints = (tmp_path / "demo" / "endpoints.yaml").read_text()
    second = infergate_demo("--simulate", "--port", str(port))
    _, logged = second.communicate(timeout=20)
    assert second.returncode == 2
    assert "used by another demo; choose another one with --directory" in logged
    assert (tmp_path / "demo" / "endpoints.yaml").read_text() == endpoints


def test_a_port_in_use_is_said_at_once(infergate_demo: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        process = infergate_demo("--simulate", "--port", str(number))
        said, logged = process.communicate(timeout=20)
    assert (process.returncode, said) == (2, "")
    assert logged == f"infergate: port {number} is in use; choose another one with --port\n"


def test_a_check_has_a_directory_of_its_own(infergate_demo: Start, tmp_path: Path) -> None:
    process = infergate_demo("--check", "--simulate", "--directory", "mine")
    _, logged = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "leave out --directory" in logged
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("word", ["0", "http"])
def test_a_port_that_is_none_is_refused(infergate_demo: Start, word: str) -> None:
    process = infergate_demo("--simulate", "--port", word)
    _, logged = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"argument --port: {word} is not a number between 1 and 65535" in logged


def test_table_shows_what_failed() -> None:
    rows = (Verdict("2 canary", "chats", "gpu", "cpu 3", holds=False), Verdict("3", "more", "cpu", "cpu", holds=True))
    assert table(rows) == (
        "scene     asked  expected  seen\n"
        "2 canary  chats  gpu       cpu 3  FAILED\n"
        "3         more   cpu       cpu    ok\n"
    )  # fmt: skip


def _has_models() -> bool:
    try:
        model_file()
    except ModelServerFailed:
        return False
    return True
