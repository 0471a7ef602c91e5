"""What the picker does for a hundred endpoints while nobody asks it: what costs something is counted, not timed."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.plugins.types import AppliedPolicy, Health
from controller.pools import Pool, PoolEndpoint

from .processes import WITHIN, PickerProcess, picker_process

IDLE = 100
INTERVAL = 0.25
"""Seconds between two readings of an endpoint; a quarter of the default, so that the test takes as much less time."""
READINGS = 6
"""Of each endpoint, at least."""
LOOPS = 52.5
"""Looks of the picker in a second: for other pools (10), for what ended (40), for models to be asked for (2), and for
endpoints that are overdue."""
PER_SCRAPE = 2
"""Times that the process may wake up for one: to ask, and for the answer."""
METRICS = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.0\n"


@dataclass
class Pods:
    """Model servers on many addresses of one port."""

    port: int = 0
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By address and path."""
    connections: Counter[str] = field(default_factory=Counter)
    """Opened to each address."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each request."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        self.connections[address] += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                self.asked[address, path] += 1
                self.news.set()
                body = METRICS if path == "/metrics" else b'{"data": []}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _pods() -> AsyncIterator[Pods]:
    pods = Pods()
    async with await asyncio.start_server(pods.serve, "0.0.0.0", 0) as server:
        pods.port = server.sockets[0].getsockname()[1]
        yield pods


async def test_100_idle_endpoints_are_read_once_an_interval_and_nothing_else_is_done(tmp_path: Path) -> None:
    addresses = [f"127.2.0.{number}" for number in range(1, IDLE + 1)]
    policy = AppliedPolicy(health=Health(scrape_interval=INTERVAL))
    async with _pods() as pods:
        endpoints = tuple(PoolEndpoint(f"{address}:{pods.port}", f"llm/{address}") for address in addresses)
        async with picker_process(tmp_path, Pool("llm/gpu", endpoints, policy=policy)) as process:
            # Then all have been asked for their models, which is due again in ten seconds.
            await _until_read(pods, addresses, times=2)
            before, woken, began = pods.asked.copy(), _wake_ups(process), time.monotonic()
            await _until_read(pods, addresses, times=2 + READINGS)
            seconds = time.monotonic() - began
            asked, woken = pods.asked - before, _wake_ups(process) - woken
    # The first and the last of a window, and half a one for what was late on its way.
    most = seconds / INTERVAL + 1.5
    assert {path for _, path in asked} <= {"/metrics", "/v1/models"}
    assert max(count for (_, path), count in asked.items() if path == "/metrics") <= most
    assert sum(count for (_, path), count in asked.items() if path == "/v1/models") <= IDLE * (1 + seconds / 10)
    # One for metrics that stays open, and one for each list of models.
    assert sum(pods.connections.values()) <= IDLE + sum(
        count for (_, path), count in pods.asked.items() if path == "/v1/models"
    )
    assert woken <= LOOPS * seconds + PER_SCRAPE * sum(asked.values()), (woken, seconds, sum(asked.values()))


async def _until_read(pods: Pods, addresses: list[str], *, times: int) -> None:
    async with asyncio.timeout(WITHIN):
        while min(pods.asked[address, "/metrics"] for address in addresses) < times:
            pods.news.clear()
            await pods.news.wait()


def _wake_ups(process: PickerProcess) -> int:
    """How often the process waited for something, since it began."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))
