"""What is told when a request is over, by NGINX or by a gateway's stream, and what it means for the endpoint."""

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

from controller.completions import Completion, decode_completion, decode_first_byte
from controller.picker.endpoints import Sent
from controller.picker.health import Failure
from controller.picker.inflight import InFlight
from controller.picker.learning import learn
from controller.picker.requests import failure_of_status, last_item

log = logging.getLogger(__name__)

_NO_HTTP: Final = 502
"""What an endpoint is taken to have answered whose answer is no HTTP; nginx's $upstream_status is 200 then."""


class Completions:
    """Takes completions and keeps the counts and the health that follow from them."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self.received = 0
        self.first_bytes = 0
        self.unknown = 0
        """Completions of requests that this picker did not send: it was restarted, or failed open."""
        self.unreadable = 0
        """Lines that hold no completion."""

    def take(self, lines: bytes, *, now: float) -> None:
        """Take completions, one JSON object a line."""
        for line in lines.splitlines():
            try:
                completion = decode_completion(line)
            except ValueError:
                self.unreadable += 1
                continue
            self.end(completion, now=now)

    def take_first_bytes(self, lines: bytes, *, now: float) -> None:
        """Take first bytes, one JSON object a line. Those of requests that are over tell nothing any more."""
        for line in lines.splitlines():
            try:
                event = decode_first_byte(line)
            except ValueError:
                self.unreadable += 1
                continue
            self.begin(event.id, waited=event.waited, now=now)

    def begin(self, request: str, *, waited: float, now: float) -> None:
        """The first byte of an answer came, so many seconds after the request was sent."""
        self.first_bytes += 1
        sent = self._in_flight.first_byte(request, waited=max(0.0, waited))
        sent = sent or self._in_flight.released(request)
        if sent is None:
            return
        sent.endpoint.heard_at = now
        if sent.endpoint.health.pause:
            # A long answer need not end before its endpoint is well again.
            sent.endpoint.health.succeeded(sent_at=sent.at)

    def end(self, completion: Completion, *, now: float) -> None:
        """A request is over."""
        self.received += 1
        if completion.waited is not None:
            # The end may be known before the first byte, which comes by another way.
            self._in_flight.first_byte(completion.id, waited=max(0.0, completion.waited))
        sent = self._in_flight.end(completion.id)
        if sent is None:
            sent = self._ended_late(completion)
            if sent is None:
                return
        if sent.counts is not None:
            sent.counts.end(completion, sent)
        endpoint = sent.endpoint
        status = endpoint_status(completion)
        if status is None or completion.endpoint != endpoint.address:
            return
        failure = failure_of_status(status)
        if failure is None:
            endpoint.heard_at = now
            if status < 400:
                endpoint.health.succeeded(sent_at=sent.at)
            else:
                endpoint.health.refused(sent_at=sent.at)
            if status < 300:
                learn(sent, completion, now=now)
        else:
            endpoint.health.failed(failure, request=completion.id, now=now)
            if failure is not Failure.ERROR:
                log.warning("endpoint unavailable", extra={"endpoint": endpoint.address, "status": status})

    def _ended_late(self, completion: Completion) -> Sent | None:
        """The request of a completion that is not in flight, if it was taken for ended before it was."""
        if self._in_flight.was_released(completion.id):
            return self._in_flight.take_released(completion.id)
        if completion.endpoint:
            self.unknown += 1
        else:
            self._in_flight.expect_pick(completion.id)
        return None


def endpoint_status(completion: Completion) -> int | None:
    """The status that the last endpoint answered; None when it did not answer, or was not asked.

    Picks and endpoints are asked in turns, a pick first: with an odd number of upstreams the last one is a pick.
    """
    if completion.upstream_status.count(" : ") % 2 == 0:
        return None
    if completion.status == 0:
        return _NO_HTTP
    last = last_item(completion.upstream_status)
    # 499 is nginx's own: the client hung up.
    return int(last) if last.isascii() and last.isdigit() and 100 <= int(last) < 600 and last != "499" else None


def remove_socket(path: Path) -> None:
    """Remove a socket that an earlier process left. Raises OSError, also when the path is something else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path}: is not a socket")
        path.unlink()
