"""Processes that an earlier life left behind in a state directory.

The lock says that nobody uses the directory, so an nginx or a picker whose working directory it is belongs to a process
that was killed. They hold ports and sockets. Linux only.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from controller.agent.state import State

log = logging.getLogger(__name__)


async def take_down(state: State, programs: Sequence[Sequence[str]], *, timeout: float = 3.0) -> None:
    """End processes that work in the state directory and run one of these commands, or an nginx.

    Asks with SIGTERM and insists with SIGKILL after `timeout` seconds.
    """
    for sign, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 1.0)):
        found = _found(state, programs)
        if not found:
            return
        log.warning("processes of an earlier life end", extra={"pids": found, "signal": sign.name})
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = asyncio.get_running_loop().time() + patience
        while _found(state, programs):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)


def _found(state: State, programs: Sequence[Sequence[str]]) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and int(entry.name) != os.getpid() and _is_ours(entry, state, programs)
    ]


def _is_ours(process: Path, state: State, programs: Sequence[Sequence[str]]) -> bool:
    try:
        if (process / "cwd").readlink() != state.root:
            return False
        # nginx writes its title over its arguments, so it is known by its file; a removed file is `... (deleted)`.
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        arguments = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:  # it ended, or is another user's
        return False
    return program.startswith("nginx") or any(arguments == [os.fsencode(word) for word in each] for each in programs)
