"""What the processes of an idle gateway hold in memory."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from tools.bench.gateway import gateway
from tools.bench.processes import Role, memory
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import Routes, write_gateway, write_pool
from tools.bench.servers import backend, free_ports

_ROUTES: Final = 100
_ENDPOINTS: Final = 6
_BARS: Final = {Role.CONTROLLER: 120, Role.PICKER: 90}
"""MB of resident memory."""


@dataclass(frozen=True)
class Held:
    """Memory of one process in MB of 10^6 bytes."""

    role: Role
    resident_mb: float
    proportional_mb: float


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    idle = 2.0 if quick else 10.0
    ports = free_ports(_ENDPOINTS + 1)
    directory = work / "resources"
    routes = Routes(directory, count=_ROUTES, backend=ports[0])
    write_gateway(directory, port=ports[-1])
    write_pool(directory, backends=ports[:-1])
    routes.write()
    with (
        backend(nginx.binary, work / "backend", ports=ports[:-1]),
        gateway(
            directory, work=work / "gateway", port=ports[-1], host=routes.host(0), path=routes.path(0)
        ) as under_test,
    ):
        progress(f"idle for {idle:g} s")
        time.sleep(idle)
        found = [_held(role, pid) for role, pids in sorted(under_test.pids().items()) for pid in pids]
    rows = [(each.role.value, f"{each.resident_mb:.1f}", f"{each.proportional_mb:.1f}") for each in found]
    title = f"Memory with {_ROUTES} routes and a pool of {_ENDPOINTS} endpoints after {idle:g} s without requests"
    return Outcome(
        figures={"routes": _ROUTES, "idle_seconds": idle, "processes": found},
        tables=(Table(title, ("process", "RSS MB", "PSS MB"), tuple(rows)),),
        bars=tuple(
            Bar(f"resident memory of the {role.value}", each.resident_mb, limit, "MB")
            for role, limit in _BARS.items()
            for each in found
            if each.role is role
        ),
    )


def _held(role: Role, pid: int) -> Held:
    found = memory(pid)
    return Held(role, found.resident / 1e6, found.proportional / 1e6)
