"""The gateway under test, started as a user starts it: `infergate run DIR`."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tools.bench.failures import CannotMeasure
from tools.bench.processes import Role, roles

_STARTS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 20.0
"""More than the ten seconds that nginx has for requests in progress."""


@dataclass(frozen=True)
class Answer:
    status: int
    """0 when nobody answered."""
    headers: dict[str, str]
    """By name in lower case."""


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    port: int
    pid: int
    """Of the controller."""
    access_log: Path
    log: Path
    """One JSON object a line."""

    def pids(self) -> dict[Role, tuple[int, ...]]:
        """The processes of each role, at this moment; the relay runs where a pool needs it.

        Raises CannotMeasure when another one is missing.
        """
        found = roles(self.pid)
        missing = sorted(set(Role) - {Role.RELAY} - found.keys())
        if missing:
            raise CannotMeasure(f"the gateway has no {', '.join(missing)}, only {found}")
        return found

    def ask(self, host: str, path: str) -> Answer:
        """GET on a connection of its own: a kept one would stay with the worker of an old version."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": host, "Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()})
        except (OSError, http.client.HTTPException):
            return Answer(0, {})
        finally:
            connection.close()

    def logged_live(self) -> tuple[float, ...]:
        """Seconds from the detection of a change until it was live, as the log says, for each change so far."""
        found = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{") and line.endswith(b"}"):
                record = msgspec.json.decode(line, type=_Record)
                if record.message == "live" and record.milliseconds is not None:
                    found.append(record.milliseconds / 1000)
        return tuple(found)


class _Record(msgspec.Struct):
    message: str = ""
    milliseconds: float | None = None


@contextmanager
def gateway(directory: Path, *, work: Path, port: int, host: str, path: str) -> Iterator[Gateway]:
    """Runs the gateway for a directory of resources until the context ends.

    Waits until a GET for `host` and `path` is answered with status 200. `work` is where its state and logs go. Raises
    CannotMeasure, with the end of its log, when it does not come up.
    """
    work.mkdir(parents=True)
    access_log, log = work / "access.log", work / "gateway.log"
    command = [sys.executable, "-m", "controller", "--log-format", "json", "run", str(directory)]
    with access_log.open("ab") as stdout, log.open("ab") as stderr:
        process = subprocess.Popen(
            [*command, "--state", str(work / "state")],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "INFERGATE_WORKERS": "1"},
        )
    running = Gateway(port=port, pid=process.pid, access_log=access_log, log=log)
    try:
        _wait_until_up(running, process, host=host, path=path)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(running: Gateway, process: "subprocess.Popen[bytes]", *, host: str, path: str) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        if running.ask(host, path).status == 200:
            return
        time.sleep(0.05)
    end = running.log.read_text(errors="replace")[-2000:]
    raise CannotMeasure(f"the gateway does not answer for {host}{path}; its log ends with:\n{end}")
