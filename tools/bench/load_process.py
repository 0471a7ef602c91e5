"""The process that sends requests: `python -m tools.bench.load_process`, a job per line in, its result per line out.

A bare asyncio protocol on uvloop with requests made beforehand, since what it costs is taken from the machine that is
measured.
"""

import asyncio
import gc
import sys
from array import array
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from time import perf_counter_ns
from typing import Final, cast

import msgspec
import uvloop

from tools.bench.bodies import chat_body
from tools.bench.load import Job, Load
from tools.bench.samples import percentile

_BODIES: Final = 16
"""Different bodies, so that not every prompt is the one before."""
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_PATIENCE: Final = 10.0
"""Seconds after the end of a job that its last answers may take."""


def main() -> None:
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin.buffer:
            load = runner.run(_run(msgspec.json.decode(line, type=Job)))
            sys.stdout.buffer.write(msgspec.json.encode(load) + b"\n")
            sys.stdout.buffer.flush()


@dataclass
class _Tally:
    """What the connections of a job count together."""

    requests: "cycle[bytes]"
    deadline: int = 0
    """Of perf_counter_ns, after which no request is sent."""
    latencies: "array[int]" = field(default_factory=lambda: array("q"))
    """Nanoseconds."""
    failed: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self._head = b""
        self._missing = -1
        """Bytes of the answer's body to come, or 1 for a chunked one; below 0 while its head is incomplete."""
        self._is_chunked = False
        self._end = b""
        """Of a chunked body."""
        self._status = b""
        self._sent = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: transports of uvloop are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, problem: Exception | None) -> None:
        if self._sent:
            self._tally.failed += 1
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self) -> None:
        self._sent = perf_counter_ns()
        self._transport.write(next(self._tally.requests))

    def data_received(self, received: bytes) -> None:
        if self._missing < 0:
            self._head += received
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._status = self._head[9:12]
            length = _content_length(self._head[: end + 2])
            received = self._head[end + 4 :]
            self._head = b""
            self._is_chunked = length is None
            self._missing = length or 0
        if self._is_chunked:
            self._end = (self._end + received)[-len(_LAST_CHUNK) :]
            self._missing = 0 if self._end == _LAST_CHUNK else 1
        else:
            self._missing -= len(received)
        if self._missing <= 0:
            self._end = b""
            self._answered()

    def _answered(self) -> None:
        now = perf_counter_ns()
        if self._status == b"200":
            self._tally.latencies.append(now - self._sent)
        else:
            self._tally.failed += 1
        self._missing = -1
        self._sent = 0
        if now < self._tally.deadline:
            self.send()
        else:
            self._transport.close()


async def _run(job: Job) -> Load:
    tally = _Tally(cycle(_requests(job.host, job.path, job.body_size)))
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: _Connection(tally), "127.0.0.1", job.port))[1]
        for _ in range(job.connections)
    ]
    begun = perf_counter_ns()
    tally.deadline = begun + round(job.seconds * 1e9)
    for connection in connections:
        connection.send()
    _, late = await asyncio.wait([each.ended for each in connections], timeout=job.seconds + _PATIENCE)
    seconds = (perf_counter_ns() - begun) / 1e9
    return Load(
        requests=len(tally.latencies),
        failed=tally.failed + len(late),
        seconds=seconds,
        median=percentile(tally.latencies, 0.5) / 1e9 if tally.latencies else 0.0,
        p99=percentile(tally.latencies, 0.99) / 1e9 if tally.latencies else 0.0,
    )


@cache
def _requests(host: str, path: str, body_size: int) -> tuple[bytes, ...]:
    bodies = [chat_body(body_size, seed=seed) for seed in range(_BODIES)]
    return tuple(
        b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
        b"User-Agent: infergate-bench\r\nAuthorization: Bearer none\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), host.encode(), len(body), body)
        for body in bodies
    )


def _content_length(head: bytes) -> int | None:
    """None for a chunked body."""
    lowered = head.lower()
    found = lowered.find(b"\r\ncontent-length:")
    if found < 0:
        return None
    start = found + len(b"\r\ncontent-length:")
    return int(lowered[start : lowered.index(b"\r\n", start)])


if __name__ == "__main__":
    main()
