"""Free ports that nobody else is given, other runs of tests on the machine included."""

import socket
from typing import Final

_HELD: Final[list[socket.socket]] = []
"""A bound socket that does not listen keeps its port from being chosen, and lets who says SO_REUSEADDR bind it."""


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 on which this process, and those that it starts, may listen until it ends."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    _HELD.extend(held)
    return [each.getsockname()[1] for each in held]


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
