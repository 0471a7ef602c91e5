"""Resident memory of the processes of a cluster whose pods are processes of this machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.bench.failures import CannotMeasure
from tools.bench.processes import memory

_PROC: Final = Path("/proc")


@dataclass(frozen=True)
class Instance:
    """MB of 10^6 bytes of the two processes of a data plane instance that are not NGINX."""

    agent: float
    picker: float


def leader_mb(identity: str) -> float:
    """Of the replica of the control plane with this name. Raises CannotMeasure when its process is not here."""
    for pid, words in _processes():
        if "controller" in words and f"--identity={identity}" in words:
            return _resident_mb(pid)
    raise CannotMeasure(f"the process of {identity} is not to be seen from here")


def instance_mb() -> Instance:
    """Of the largest agent and the largest picker. Raises CannotMeasure when there are none."""
    found = {
        role: [_resident_mb(pid) for pid, words in _processes() if is_program(words, role)]
        for role in ("agent", "picker")
    }
    if not all(found.values()):
        raise CannotMeasure("the processes of the data plane are not to be seen from here")
    return Instance(**{role: max(sizes) for role, sizes in found.items()})


def is_program(words: tuple[str, ...], name: str) -> bool:
    """Whether a command line is that of `python -m controller NAME`, with options before the name or none."""
    if "controller" not in words:
        return False
    after = words[words.index("controller") + 1 :]
    return name in after and after[0] != "controller"


def _processes() -> Iterable[tuple[int, tuple[str, ...]]]:
    for directory in _PROC.iterdir():
        if directory.name.isdecimal():
            try:
                text = (directory / "cmdline").read_text()
            except OSError:  # it ended
                continue
            yield int(directory.name), tuple(text.rstrip("\0").split("\0"))


def _resident_mb(pid: int) -> float:
    return memory(pid).resident / 1e6
