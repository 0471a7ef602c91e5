"""The load generator as benchmarks see it: a process of its own that runs one job after the other."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

import msgspec

from tools.bench.failures import CannotMeasure
from tools.bench.resources import CHAT_PATH

_GRACE: Final = 10.0
"""Seconds that the generator may take to stop."""


class Job(msgspec.Struct, frozen=True):
    """Requests to send in a closed loop: each connection sends its next one when it has the answer."""

    port: int
    """On 127.0.0.1."""
    host: str
    body_size: int
    """Bytes, at least 400."""
    connections: int
    seconds: float
    path: str = CHAT_PATH


class Load(msgspec.Struct, frozen=True):
    """What became of a job."""

    requests: int
    """Answered with status 200."""
    failed: int
    """Answered otherwise, or not at all."""
    seconds: float
    median: float
    """Seconds from the first byte sent to the last one received."""
    p99: float


@dataclass(frozen=True)
class Measured:
    """What became of a job, and what it took."""

    load: Load
    cpu: float
    """Seconds of CPU of all that stands between client and endpoint, as far as the benchmark counts it."""

    @property
    def per_request(self) -> float:
        """Seconds of CPU."""
        return self.cpu / self.load.requests


@dataclass(frozen=True)
class LoadGenerator:
    """A running load generator."""

    requests: IO[bytes]
    answers: IO[bytes]

    def run(self, job: Job) -> Load:
        """Blocks until the job is done.

        Raises CannotMeasure when the generator ends instead, or no request was answered with status 200.
        """
        self.requests.write(msgspec.json.encode(job) + b"\n")
        self.requests.flush()
        line = self.answers.readline()
        if not line:
            raise CannotMeasure(f"the load generator ended during {job}")
        load = msgspec.json.decode(line, type=Load)
        if not load.requests:
            raise CannotMeasure(f"no request of {job} was answered with status 200")
        return load


@contextmanager
def load_generator() -> Iterator[LoadGenerator]:
    """Starts a load generator, and stops it at the end."""
    command = [sys.executable, "-m", "tools.bench.load_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield LoadGenerator(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
