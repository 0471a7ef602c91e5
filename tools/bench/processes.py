"""What /proc says of processes: which belong together, the CPU time they used, and the memory they hold. Linux only."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


class Role(StrEnum):
    """What a process of the gateway does."""

    CONTROLLER = "controller"
    NGINX_MASTER = "nginx master"
    NGINX_WORKER = "nginx worker"
    PICKER = "picker"
    RELAY = "relay"


@dataclass(frozen=True)
class Stat:
    """Some fields of /proc/PID/stat. Source: proc_pid_stat(5)."""

    pid: int
    parent: int
    ticks: int
    """User and system time of all threads, in clock ticks."""


@dataclass(frozen=True)
class Memory:
    """Bytes of physical memory."""

    resident: int
    proportional: int
    """Pages that several processes share are divided among them."""


def parse_stat(text: str) -> Stat:
    """Raises ValueError when the text is not of that shape."""
    # The name, in parentheses, may hold spaces and parentheses.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if len(fields) < 13:
        raise ValueError("not the text of a /proc/PID/stat")
    return Stat(pid=int(head.split(" ", 1)[0]), parent=int(fields[1]), ticks=int(fields[11]) + int(fields[12]))


def parse_schedstat(text: str) -> int:
    """Nanoseconds that a thread ran; 0 where the kernel does not count them. Source: Documentation/scheduler."""
    return int(text.split()[0])


def parse_rollup(text: str) -> Memory:
    """From the text of /proc/PID/smaps_rollup.

    Raises KeyError when a line is missing.
    """
    sizes = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in text.splitlines())
        if rest.endswith(" kB")
    }
    return Memory(resident=sizes["Rss"], proportional=sizes["Pss"])


def role_of(command: str) -> Role:
    """Of a process that the controller started, or that one of these did, by its command line.

    The command line has spaces between arguments. What is none of the known, as a test of nginx, counts as the
    controller's own work.
    """
    if command.startswith("nginx: worker"):
        return Role.NGINX_WORKER
    if command.startswith("nginx: "):
        return Role.NGINX_MASTER
    for role in (Role.PICKER, Role.RELAY):
        if role.value in command.split():
            return role
    return Role.CONTROLLER


def descendants(root: int, parents: Mapping[int, int]) -> tuple[int, ...]:
    """A process and all that it started, directly or not, from the parent of each process; sorted."""
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return tuple(sorted(found))


def tree(root: int) -> tuple[int, ...]:
    """A running process and all that it started; sorted."""
    parents = {}
    for directory in _PROC.iterdir():
        if directory.name.isdecimal():
            try:
                stat = parse_stat((directory / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):  # it ended
                continue
            parents[stat.pid] = stat.parent
    return descendants(root, parents)


def roles(controller: int) -> dict[Role, tuple[int, ...]]:
    """The running processes of a gateway by their role, each sorted."""
    found: defaultdict[Role, tuple[int, ...]] = defaultdict(tuple)
    for pid in tree(controller):
        command = (_PROC / f"{pid}/cmdline").read_text().replace("\0", " ")
        found[Role.CONTROLLER if pid == controller else role_of(command)] += (pid,)
    return dict(found)


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes used together."""
    return sum(map(cpu_seconds, pids))


def cpu_seconds(pid: int) -> float:
    """CPU time that the living threads of a process used.

    From the scheduler, which counts nanoseconds; from /proc/PID/stat, in steps of a clock tick (10 ms), where the
    kernel has no such count.
    """
    nanoseconds = 0
    for thread in (_PROC / f"{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended, or the kernel has no such file
            nanoseconds += parse_schedstat((thread / "schedstat").read_text())
    if nanoseconds:
        return nanoseconds / 1e9
    return parse_stat((_PROC / f"{pid}/stat").read_text()).ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory:
    return parse_rollup((_PROC / f"{pid}/smaps_rollup").read_text())
