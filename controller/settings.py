"""What the environment says: settings with an `INFERGATE_` name, and the limits of the machine.

Kubernetes gives pods variables such as `INFERGATE_PORT=tcp://…` for a Service named `infergate`, so no setting ends in
`_PORT`, `_HOST` or `_ADDR`.
"""

import contextlib
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.errors import SettingInvalid

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
_AUTHORITIES_FILES = tuple(
    Path(path)
    for path in (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
        "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
        "/etc/ssl/ca-bundle.pem",  # SUSE
        "/etc/ssl/cert.pem",
    )
)
_LARGE_REQUEST = 256 * 1024
"""Bytes of nginx's memory that a request with a large body takes; the rest is on disk."""


class Settings(BaseModel):
    """Settings of the data plane, each from the variable `INFERGATE_` + its name in upper case."""

    model_config = ConfigDict(frozen=True)

    nginx: str | None = None
    """Path of the nginx binary; None: the system's if it is new enough, else the embedded one."""
    workers: int = Field(default=0, ge=0, le=512)
    """nginx worker processes; 0: one for each processor that this process may use."""
    max_body_size: int = Field(default=128 * 1024 * 1024, ge=1024)
    """Bytes of a request's body; larger ones are answered 413."""
    max_large_requests: int = Field(default=0, ge=0, le=1_000_000)
    """Requests under way with a body of 100 KB and more; further ones are answered 429.

    0: as many as fill a quarter of the memory that this process may use.
    """
    access_log: str = "/dev/stdout"
    """Path of the access log; a relative one lies in the state directory."""


def settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from environment variables.

    Raises SettingInvalid, which names the variable.
    """
    given = {name: environment.get(f"INFERGATE_{name.upper()}") for name in Settings.model_fields}
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as problem:
        first = problem.errors()[0]
        variable = f"INFERGATE_{str(first['loc'][0]).upper()}"
        raise SettingInvalid(f"{variable}={str(first['input'])[:80]}: {first['msg'].lower()}") from problem


def system_authorities(
    environment: Mapping[str, str] = os.environ, files: Sequence[Path] = _AUTHORITIES_FILES
) -> bytes | None:
    """Certificates in PEM of the authorities that this system trusts: those that SSL_CERT_FILE names, else where a
    distribution has them. None when there are none.

    Blocks while it reads.
    """
    chosen = environment.get("SSL_CERT_FILE")
    for path in [Path(chosen)] if chosen else files:
        with contextlib.suppress(OSError):
            found = path.read_bytes()
            if b"-----BEGIN CERTIFICATE-----" in found:
                return found
    return None


def usable_processors(cpu_max: Path = _CPU_MAX) -> int:
    """Processors that this process may use: the affinity mask, and the quota of its control group.

    nginx's own `auto` counts the machine's, and starts 64 workers in a pod with one processor.
    """
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))


def usable_files(wanted: int = 65536) -> int:
    """Open files that a worker may have: what is wanted, or the hard limit of this process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def fitting_large_requests(memory_max: Path = _MEMORY_MAX) -> int:
    """Requests with large bodies whose buffers fill a quarter of the memory that this process may use, 64 at least."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        # "max" is no number.
        memory = min(memory, int(memory_max.read_text()))
    return large_requests_in(memory)


def large_requests_in(memory: int) -> int:
    """Requests with large bodies whose buffers fill a quarter of so many bytes, 64 at least."""
    return max(64, memory // 4 // _LARGE_REQUEST)
