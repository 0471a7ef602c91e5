"""The YAML of the demo in a directory that its user may edit."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import yaml

from controller.demo.servers import ModelServer
from controller.errors import InfergateError

ROUTES: Final = "routes.yaml"
"""The file with the scenes."""
_KEPT: Final = ("pools.yaml", ROUTES)
"""Written when they are missing. The others depend on ports and are written at every start."""
_ENDPOINTS: Final = """\
# Written at every start of the demo, since model servers are given free ports: edits are lost then.
# An EndpointSlice with this label adds its ready addresses to the InferencePool that the label names.
"""


class DirectoryUnusable(InfergateError):
    """The directory of the demo cannot be written, or another demo uses it."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Makes the directory, and keeps other demos out of it until the context ends. Raises DirectoryUnusable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DirectoryUnusable(f"{directory} is used by another demo; choose another one with --directory") from None
    finally:
        os.close(descriptor)


def write(directory: Path, servers: Iterable[ModelServer], *, port: int, fresh: bool = False) -> None:
    """Brings the directory to what runs. `fresh`: what the user may have edited is written again as well.

    Raises DirectoryUnusable.
    """
    try:
        for name in _KEPT:
            if fresh or not (directory / name).exists():
                _replace(directory / name, _text(name))
        _replace(directory / "gateway.yaml", Template(_text("gateway.yaml")).substitute(port=port))
        _replace(directory / "endpoints.yaml", _ENDPOINTS + endpoint_slices(servers))
    except OSError as error:
        raise _unusable(directory, error) from error


def endpoint_slices(servers: Iterable[ModelServer]) -> str:
    """One EndpointSlice for each server, because the ports of a slice hold for all its addresses."""
    return yaml.safe_dump_all((_slice(server) for server in servers), sort_keys=False)


def _slice(server: ModelServer) -> dict[str, object]:
    host, _, port = server.address.rpartition(":")
    labels = {"infergate.dev/inference-pool": server.pool}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": server.name, "namespace": "demo", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host]}],
        "ports": [{"port": int(port)}],
    }


def _text(name: str) -> str:
    return (files("controller.demo") / "resources" / name).read_text()


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def _unusable(directory: Path, error: OSError) -> DirectoryUnusable:
    return DirectoryUnusable(f"{directory} cannot be written: {(error.strerror or str(error)).lower()}")
