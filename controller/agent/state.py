"""The directory that one data plane lives in, and the right to use it.

    releases/000001/   nginx.conf and the other files of a bundle
    current            symbolic link to the release that nginx loads
    pools.json         what the picker follows
    run/               Unix sockets and the pid of nginx
    tmp/               bodies that nginx spills to disk
    lock               held by the process that uses the directory

nginx and the picker run with this directory as their working directory: Unix socket paths stay below the kernel's 108
bytes wherever the directory is, and rendered files do not depend on the place.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.errors import StateUnusable
from controller.pools import POOLS_FILE

CONTROL_SOCKET: Final = "run/control.sock"
"""Where nginx answers for its version."""
PICKER_SOCKET: Final = "run/picker.sock"
"""Where the picker answers picks, `/healthz` and `/readyz`."""
RELAY_SOCKET: Final = "run/relay.sock"
"""Where the relay takes requests of pools with an external picker, and answers `/healthz` and `/readyz`."""
DIALER_SOCKET: Final = "run/dialer.sock"
"""Where the dialer answers `/healthz`."""
PID_FILE: Final = "run/nginx.pid"
LOCK_FILE: Final = "lock"


@dataclass(frozen=True)
class State:
    """Paths in a state directory."""

    root: Path
    """Absolute, without symbolic links."""

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def current(self) -> Path:
        return self.root / "current"

    @property
    def pools(self) -> Path:
        return self.root / POOLS_FILE

    @property
    def run(self) -> Path:
        return self.root / "run"


@contextmanager
def locked(root: Path) -> Iterator[State]:
    """The state directory at `root`, made when missing and held until the context ends.

    Raises StateUnusable when it cannot be written or another process holds it.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = State(root.resolve())
        for directory in (state.releases, state.run, state.root / "tmp"):
            directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(state.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateUnusable(f"state directory {root} cannot be written: {error.strerror}") from error
    try:
        _take(lock, root)
        yield state
    finally:
        os.close(lock)


def _take(lock: int, root: Path) -> None:
    try:
        _flock(lock)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        raise StateUnusable(f"state directory {root} is used by another process (pid {holder})") from error
    except OSError as error:
        raise StateUnusable(f"state directory {root} cannot be locked: {error.strerror}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _flock(lock: int) -> None:
    """Takes a lock. A picker that waits for its end looks whether it is free by taking it for a moment."""
    for _ in range(4):
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.005)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees the old or the whole of the new.

    Blocks until it is on disk. Raises StateUnusable when it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        write_file(draft, content, mode=0o600)
        draft.replace(path)
    except OSError as error:
        raise StateUnusable(f"{path} cannot be written: {error.strerror}") from error


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """A file with these permissions from its first byte on, and its content on disk.

    Blocks. Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
