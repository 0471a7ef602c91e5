import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controller.agent.supervise import Backoff, Check, Program, Supervisor

Until = Callable[[Callable[[], bool]], Awaitable[None]]
Start = Callable[..., Supervisor]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        def begin(script: str, *, check: Check | None = None, first: float = 0.01) -> Supervisor:
            program = Program(
                name="child",
                command=(sys.executable, "-I", "-S", "-u", "-c", script),
                directory=tmp_path,
                stops=((signal.SIGTERM, 0.5),),
                leash=signal.SIGKILL,
                orphans=signal.SIGKILL,
                prepare=lambda: None,
                level=lambda line: logging.WARNING if "warn" in line else None,
                check=check,
            )
            supervisor = Supervisor(program, backoff=Backoff(first=first, limit=first * 4))
            supervisor.start()
            stack.push_async_callback(supervisor.stop)
            return supervisor

        yield begin


_LIVES = "import signal; print('ready'); signal.pause()"


async def test_killed_child_comes_back(start: Start, until: Until) -> None:
    supervisor = start(_LIVES)
    await until(lambda: supervisor.last_line == "ready")
    first = supervisor.pid
    supervisor.send(signal.SIGKILL)
    await until(lambda: supervisor.pid not in (None, first))
    assert supervisor.ends == 1


async def test_delay_grows_to_its_limit(start: Start, until: Until, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = start("", first=0.001)
    await until(lambda: supervisor.ends >= 4)
    delays = [vars(record)["delay"] for record in caplog.records if "delay" in vars(record)]
    assert delays[:4] == [0.001, 0.002, 0.004, 0.004]


async def test_waiting_child_is_started_at_once_when_woken(start: Start, until: Until) -> None:
    supervisor = start("", first=60)
    await until(lambda: supervisor.ends == 1)
    supervisor.wake()
    await until(lambda: supervisor.ends == 2)


async def test_program_that_does_not_exist_is_tried_again(tmp_path: Path, until: Until) -> None:
    program = Program(
        "child", ("/nowhere/child",), tmp_path, (), signal.SIGKILL, signal.SIGKILL, lambda: None, lambda _: None
    )
    supervisor = Supervisor(program, backoff=Backoff(first=0.001))
    supervisor.start()
    await until(lambda: supervisor.ends >= 2)
    await supervisor.stop()
    assert supervisor.last_line == "cannot run /nowhere/child: No such file or directory"


async def test_lines_go_to_the_log_at_the_level_they_name(
    start: Start, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    supervisor = start("print('plain'); print('warned'); print('  goes on'); print('cut', end='')")
    await until(lambda: supervisor.ends >= 1)
    said = [(record.levelno, record.message) for record in caplog.records if record.name == "child"]
    assert said[:2] == [(logging.INFO, "plain"), (logging.WARNING, "warned")]
    assert said[2:4] == [(logging.WARNING, "  goes on"), (logging.WARNING, "cut")]


async def test_child_that_hangs_is_killed_and_started_again(start: Start, until: Until) -> None:
    answers = iter([True, False, False])

    async def is_well() -> bool:
        return next(answers, True)

    supervisor = start(_LIVES, check=Check(is_well, interval=0.01, misses=2))
    await until(lambda: supervisor.ends == 1)
    await until(lambda: supervisor.pid is not None)


async def test_child_that_is_still_starting_is_left_alone(start: Start, until: Until) -> None:
    asked = 0

    async def is_well() -> bool:
        nonlocal asked
        asked += 1
        return False

    supervisor = start(_LIVES, check=Check(is_well, interval=0.001, misses=1, startup=60))
    await until(lambda: asked > 5)
    assert supervisor.ends == 0


async def test_stop_ends_a_child_that_ignores_it_and_its_children(
    start: Start, until: Until, is_running: Callable[[int], bool]
) -> None:
    supervisor = start(
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); child = os.fork();"
        "print(child or '') if child else None; signal.pause()"
    )
    await until(lambda: supervisor.last_line.isdecimal())
    pids = [supervisor.pid or 0, int(supervisor.last_line)]
    assert all(map(is_running, pids))
    await supervisor.stop()
    assert not is_running(pids[0])
    # Killed as well; the system takes it away when it comes to that.
    await until(lambda: not is_running(pids[1]))


async def test_stop_during_the_delay_starts_nothing(start: Start, until: Until) -> None:
    supervisor = start("", first=60)
    await until(lambda: supervisor.ends == 1)
    async with asyncio.timeout(2):
        await supervisor.stop()
    assert supervisor.pid is None


async def test_child_leaves_the_terminal_of_its_parent(start: Start, until: Until) -> None:
    supervisor = start("import os; print(os.getsid(0)); " + _LIVES)
    await until(lambda: supervisor.last_line == "ready")
    assert supervisor.pid is not None
    assert os.getsid(supervisor.pid) == supervisor.pid
