import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.completions import COMPLETIONS_FILE
from controller.picker.outlive import until_free


def _locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@pytest.mark.parametrize("exists", [True, False])
async def test_nothing_is_waited_for_when_nobody_holds_the_lock(exists: bool, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    if exists:
        os.close(_locked(path))
    async with asyncio.timeout(1):
        await until_free(path, timeout=60)


async def test_wait_ends_when_the_lock_is_let_go(tmp_path: Path) -> None:
    lock = _locked(tmp_path / "lock")
    waiting = asyncio.create_task(until_free(tmp_path / "lock", timeout=60))
    await asyncio.wait({waiting}, timeout=0.1)
    assert not waiting.done()
    os.close(lock)
    async with asyncio.timeout(2):
        await waiting


async def test_wait_has_an_end(tmp_path: Path) -> None:
    lock = _locked(tmp_path / "lock")
    async with asyncio.timeout(2):
        await until_free(tmp_path / "lock", timeout=0.1)
    os.close(lock)


@asynccontextmanager
async def _picker(state: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    files = ("--socket", "run/picker.sock", "--pools", "pools.json", "--completions", COMPLETIONS_FILE)
    arguments = ("picker", *files, *options)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "controller", *arguments, cwd=state)
    try:
        async with asyncio.timeout(20):
            while not (state / "run/picker.sock").exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_picker_outlives_the_holder_of_the_lock(tmp_path: Path) -> None:
    lock = _locked(tmp_path / "lock")
    async with _picker(tmp_path, "--outlive", "lock", "--grace", "60") as picker:
        picker.send_signal(signal.SIGTERM)
        await asyncio.wait({asyncio.create_task(picker.wait())}, timeout=0.5)
        assert picker.returncode is None
        _, writer = await asyncio.open_unix_connection(tmp_path / "run/picker.sock")  # it still answers
        writer.close()
        os.close(lock)
        async with asyncio.timeout(5):
            assert await picker.wait() == 0
