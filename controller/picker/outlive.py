"""Waits for the end of NGINX in another container, whose process ids mean nothing here.

The process that runs NGINX holds a lock on a file until NGINX has ended, and the kernel lets it go however that process
ends.
"""

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 0.2
"""Seconds; one look is three system calls."""


async def until_free(path: Path, *, timeout: float) -> None:
    """Wait until nobody holds a lock on a file, or it does not exist, for at most `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while _is_held(path):
        if loop.time() >= deadline:
            log.warning("NGINX still runs", extra={"waited": timeout})
            return
        await asyncio.sleep(_LOOK_EVERY)


def _is_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
