"""The simulated pods of a run: a process of their own, which ends with the run and takes its caches along."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final, TypeVar

import msgspec

from controller.simulator.settings import PodSettings
from tools.bench.failures import CannotMeasure
from tools.bench.picking.scenarios import Scenario
from tools.bench.picking.workload import MODEL, adapters

T = TypeVar("T")

_GRACE: Final = 10.0
"""Seconds that the pods may take to stop."""


class Listening(msgspec.Struct, frozen=True):
    """The first line that the process writes."""

    ports: tuple[int, ...]


class Stopped(msgspec.Struct, frozen=True):
    """The last line that the process writes."""

    lateness_p99: float
    """Seconds by which its event loop was late."""


@dataclass
class PodProcess:
    """Running pods."""

    pid: int
    ports: tuple[int, ...]
    """Of each pod, on 127.0.0.1."""
    lateness_p99: float = 0.0
    """Seconds; known once they have stopped."""


def pods_of(scenario: Scenario, *, seed: int) -> tuple[PodSettings, ...]:
    """The slow ones first: where a policy prefers the first of equals, that is the hard case."""
    pods = scenario.pods
    return tuple(
        PodSettings(
            name=f"pod-{number}",
            model=MODEL,
            adapters=adapters(scenario),
            seed=seed,
            speed=0.5 if number < pods.slow else 1.0,
            token_time=pods.token_time,
            max_sequences=pods.sequences,
            blocks=pods.blocks,
            max_adapters=pods.adapter_slots,
            max_context=pods.blocks * PodSettings.model_fields["block_size"].default,
            # nginx keeps connections longer than the 5 s of the default, and would meet closed ones.
            keep_alive=120,
        )
        for number in range(pods.count)
    )


@contextmanager
def running_pods(settings: tuple[PodSettings, ...]) -> Iterator[PodProcess]:
    """Starts pods on free ports, and stops them at the end. Raises CannotMeasure when they do not start."""
    command = [sys.executable, "-m", "tools.bench.picking.pods_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode([each.model_dump() for each in settings]) + b"\n")
        process.stdin.flush()
        running = PodProcess(process.pid, _line(process.stdout, Listening).ports)
        yield running
        process.stdin.close()
        running.lateness_p99 = _line(process.stdout, Stopped).lateness_p99
    finally:
        process.stdin.close()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _line(source: IO[bytes], kind: type[T]) -> T:
    line = source.readline()
    if not line:
        raise CannotMeasure("the simulated pods ended")
    return msgspec.json.decode(line, type=kind)
