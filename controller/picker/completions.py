"""What NGINX tells when a request is over, and what it means for the endpoint."""

import contextlib
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Final

from controller.bundle import Completion, decode_completion
from controller.picker.health import Failure
from controller.picker.inflight import InFlight
from controller.picker.requests import failure_of_status, last_item

log = logging.getLogger(__name__)

RECEIVE_BUFFER: Final = 8 * 1024 * 1024
"""Bytes asked for; the kernel caps it at net.core.rmem_max."""
LARGEST_DATAGRAM: Final = 65_536
DATAGRAMS_AT_ONCE: Final = 64
"""Taken before the loop gets its turn: about 0.3 ms."""


class Completions:
    """Takes completions and keeps the counts and the health that follow from them."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self.received = 0
        self.unknown = 0
        """Completions of requests that this picker did not send: it was restarted, or failed open."""
        self.unreadable = 0
        """Datagrams that hold no completion."""

    def take(self, datagram: bytes, *, now: float) -> None:
        """Take one datagram of the feed."""
        try:
            completion = decode_completion(datagram)
        except ValueError:
            self.unreadable += 1
            return
        self.received += 1
        ended = self._in_flight.end(completion.id)
        if ended is None:
            if self._in_flight.was_released(completion.id):
                return
            if completion.endpoint:
                self.unknown += 1
            else:
                self._in_flight.expect_pick(completion.id)
            return
        endpoint = ended.endpoint
        status = endpoint_status(completion)
        if status is None or completion.endpoint != endpoint.address:
            return
        failure = failure_of_status(status)
        if failure is None:
            endpoint.health.succeeded(sent_at=ended.sent_at)
        else:
            endpoint.health.failed(failure, request=completion.id, now=now)
            if failure is not Failure.ERROR:
                log.warning("endpoint unavailable", extra={"endpoint": endpoint.address, "status": status})


def endpoint_status(completion: Completion) -> int | None:
    """The status that the last endpoint answered; None when it did not answer, or was not asked.

    Picks and endpoints are asked in turns, a pick first: with an odd number of upstreams the last one is a pick.
    """
    if completion.upstream_status.count(" : ") % 2 == 0:
        return None
    last = last_item(completion.upstream_status)
    # 499 is nginx's own: the client hung up.
    return int(last) if last.isascii() and last.isdigit() and 100 <= int(last) < 600 and last != "499" else None


class Feed:
    """The datagram socket of the completions."""

    def __init__(self, path: Path, completions: Completions) -> None:
        """Bind the socket, in place of one that an earlier picker left. Raises OSError when that fails."""
        self._completions = completions
        remove_socket(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._socket.bind(str(path))
            path.chmod(0o666)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def drain(self, *, now: float) -> None:
        """Take what has come, without waiting.

        Also called before every pick: a kernel that queues ten datagrams (net.unix.max_dgram_qlen) drops the rest, and
        a pick is better for knowing what has ended. An empty queue costs 2 us.
        """
        receive = self._socket.recv
        take = self._completions.take
        with contextlib.suppress(BlockingIOError, InterruptedError):
            for _ in range(DATAGRAMS_AT_ONCE):
                take(receive(LARGEST_DATAGRAM), now=now)

    def close(self) -> None:
        """Stop receiving."""
        self._socket.close()


def datagrams_queued(path: Path = Path("/proc/sys/net/unix/max_dgram_qlen")) -> int | None:
    """How many datagrams the kernel keeps for a Unix socket that is not read; None when it does not say."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def remove_socket(path: Path) -> None:
    """Remove a socket that an earlier process left. Raises OSError, also when the path is something else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path}: is not a socket")
        path.unlink()
