"""CPU time of the processes of a cluster that run on this machine, by what they are."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools.bench.cluster.residents import is_program

_PROC: Final = Path("/proc")
_OURS: Final = ("agent", "picker", "relay")
_BENCHMARK: Final = "benchmark"
_OTHERS: Final = "others"
_PROGRAMS: Final = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-proxy")

Effort = Mapping[str, float]
"""CPU seconds by program."""


def effort() -> Effort:
    """CPU seconds that were used until now. What a process used that ended is its parent's, once that waited for it."""
    found: dict[str, float] = defaultdict(float)
    for directory in _PROC.iterdir():
        if directory.name.isdecimal():
            try:
                words = tuple((directory / "cmdline").read_text().rstrip("\0").split("\0"))
                own, ended = cpu((directory / "stat").read_text())
            except OSError:  # it ended
                continue
            name = _BENCHMARK if int(directory.name) == os.getpid() else program(words)
            found[name] += own + ended
    return found


def spent(before: Effort, after: Effort) -> Effort:
    """CPU seconds between two looks, most first; without what used none. What ended in between is not below zero."""
    found = {name: max(0.0, seconds - before.get(name, 0.0)) for name, seconds in after.items()}
    return dict(sorted(((name, seconds) for name, seconds in found.items() if seconds), key=lambda item: -item[1]))


def program(words: tuple[str, ...]) -> str:
    """What a command line runs."""
    name = words[0].rpartition("/")[2]
    if name in _PROGRAMS:
        return name
    if words[0].startswith("nginx:") or name == "nginx":
        return "nginx"
    if words.count("controller") > 1:
        return "control plane"
    return next((role for role in _OURS if is_program(words, role)), _OTHERS)


def cpu(text: str) -> tuple[float, float]:
    """(own, of ended children) seconds from the text of /proc/PID/stat. Source: proc_pid_stat(5)."""
    fields = text.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + system) / tick, (children_user + children_system) / tick
