"""The load generator of this benchmark as its caller sees it: one process for one run."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

import msgspec

from tools.bench.failures import CannotMeasure

_GRACE: Final = 10.0
"""Seconds that the generator may take to stop."""


class Job(msgspec.Struct, frozen=True):
    """The sessions of a scenario, to be sent to one host of the gateway."""

    scenario: str
    seed: int
    seconds: float
    """In which turns begin; answers of those that have begun are waited for."""
    patience: float
    """Seconds after that in which they must have come."""
    port: int
    """On 127.0.0.1."""
    host: str


class Started(msgspec.Struct, frozen=True):
    """The first line that the process writes: from here on the seconds of a job count."""


class Request(msgspec.Struct, frozen=True):
    """What became of one request. Seconds; without an answer, or with another status than 200, the times are 0."""

    sent: float
    """Since the start."""
    late: float
    """By which it was sent too late."""
    status: int
    """0 without a whole answer."""
    pod: str = ""
    first: float = 0.0
    """From sending until the first event with text in it."""
    whole: float = 0.0
    """From sending until the last byte."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0


class Sent(msgspec.Struct, frozen=True):
    """All requests of a job, in the order in which they ended."""

    requests: tuple[Request, ...]
    lateness_p99: float
    """Seconds by which the generator's event loop was late."""


@dataclass(frozen=True)
class LoadGenerator:
    """A load generator that has begun."""

    pid: int
    _answers: IO[bytes]

    def sent(self) -> Sent:
        """Blocks until all is answered. Raises CannotMeasure when the generator ends instead."""
        line = self._answers.readline()
        if not line:
            raise CannotMeasure("the load generator ended")
        return msgspec.json.decode(line, type=Sent)


@contextmanager
def load_generator(job: Job) -> Iterator[LoadGenerator]:
    """Starts a job and hands out its generator when the first second begins. Raises CannotMeasure when it does not."""
    command = [sys.executable, "-m", "tools.bench.picking.load_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        process.stdin.close()
        if not process.stdout.readline():
            raise CannotMeasure("the load generator did not start")
        yield LoadGenerator(process.pid, process.stdout)
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
