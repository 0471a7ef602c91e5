"""Ports of this machine."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from controller.errors import InfergateError

HOST: Final = "127.0.0.1"


class PortTaken(InfergateError):
    """The port of the gateway cannot be had."""


@contextmanager
def reserved(count: int) -> Iterator[tuple[int, ...]]:
    """Free ports that the kernel gives to nobody else until the context ends, while our own programs listen on them.

    A bound socket that does not listen keeps a port from being chosen, and SO_REUSEADDR on both lets another bind it.
    """
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            held = stack.enter_context(_socket())
            held.bind((HOST, 0))
            ports.append(held.getsockname()[1])
        yield tuple(ports)


def require_free(port: int) -> None:
    """Raises PortTaken when nobody could listen on it."""
    with _socket() as probe:
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            reason = "is in use" if is_taken else f"cannot be opened ({os.strerror(error.errno or 0).lower()})"
            raise PortTaken(f"port {port} {reason}; choose another one with --port") from error


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
