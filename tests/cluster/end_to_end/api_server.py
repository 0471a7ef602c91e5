"""The API server as a process of this machine, killed and started again as it was."""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_PROC: Final = Path("/proc")


@dataclass(frozen=True)
class ApiServer:
    """How it was started."""

    pid: int
    command: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    log: Path

    def kill(self) -> None:
        """At once, and with all its connections."""
        os.kill(self.pid, signal.SIGKILL)

    def start(self) -> None:
        """As nobody's child: it goes on when the test has ended."""
        with self.log.open("ab") as log:
            subprocess.run(
                ("setsid", "--fork", *self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment,
                check=True,
            )


def api_server() -> ApiServer:
    """The one that runs. Skips where its process is not to be seen, as in a cluster of several machines."""
    for directory in _PROC.iterdir():
        try:
            command = _words(directory / "cmdline") if directory.name.isdecimal() else ()
            if command and command[0].rpartition("/")[2] == "kube-apiserver":
                named = (word.partition("=") for word in _words(directory / "environ"))
                return ApiServer(
                    pid=int(directory.name),
                    command=command,
                    environment={name: value for name, _, value in named},
                    directory=(directory / "cwd").readlink(),
                    log=(directory / "fd/2").readlink(),
                )
        except OSError:  # it ended, or is not ours to look at
            continue
    pytest.skip("needs the API server to be a process of this machine that may be killed")


def _words(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().rstrip("\0").split("\0"))
