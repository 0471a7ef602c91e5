"""A million distinct prompts: what the picker keeps of them has a bound, and its process stays below 200 MB."""

import asyncio
import logging
import os
import socket
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path

import msgspec

from controller.completions import Completion
from controller.picker.index_budget import LIMIT, bytes_of
from controller.pools import Pool, PoolEndpoint
from tools.bench.processes import memory

from .conftest import Picker, request_of
from .processes import PickerProcess, picker_process

log = logging.getLogger(__name__)

MILLION = 1_000_000
CHUNKS = 16
"""Of a prompt of 4 KB."""
NAMES = "abcdefghijklmnopqrstuvwxyz"

PROMPTS = int(os.environ.get("INFERGATE_TEST_PROMPTS", "24000"))
"""Sent to the process; 1000000 for the promise itself, which takes some three minutes."""
SIZE = 4_200 if PROMPTS >= MILLION else 33_000
"""Bytes of each; so long that the indexes are full, both generations, with two thirds of the prompts."""
FILLED = PROMPTS // 5 if PROMPTS >= MILLION else PROMPTS * 2 // 3
"""Prompts after which nothing may grow any more."""
MOST = 200_000_000
GROWTH = 6_000_000
"""Bytes, since memory that is used again does not fit exactly: 0.75 KB for each prompt of a short run, 8 bytes for each
of a million."""
CONNECTIONS = 8
ENDPOINTS = 64
POOL = Pool(
    name="llm/gpu", endpoints=tuple(PoolEndpoint(f"127.1.0.{n}:9", f"llm/{n}") for n in range(1, ENDPOINTS + 1))
)
"""Endpoints that do not say how large their caches are: each wants as much as there is."""
ENDPOINT = b"x-gateway-destination-endpoint: "


def test_a_million_distinct_hashes_fill_no_more_than_the_limit(picker: Picker) -> None:
    picker.serve(*NAMES)
    hashes = count(1)
    most = 0
    for number in range(MILLION // CHUNKS):
        request = request_of(f"r{number}")
        request.hashes = list(islice(hashes, CHUNKS))
        request.prompt_bytes = CHUNKS * 256
        (chosen, *_) = picker.director.pick(request)  # type: ignore[misc]  # no request is refused here
        picker.in_flight.end(request.id)
        most = max(most, len(chosen.prefixes))
    indexes = [endpoint.prefixes for endpoint in picker.table.endpoints]
    assert 2 * sum(bytes_of(index.capacity) for index in indexes) <= LIMIT
    assert most <= 2 * min(index.capacity for index in indexes)
    assert sum(map(len, indexes)) >= sum(index.capacity for index in indexes) / 2
    assert len(picker.in_flight) == 0
    assert all(endpoint.backlog == endpoint.tokens == 0 for endpoint in picker.table.endpoints)
    assert len(picker.director.picks) == 1


async def test_memory_of_the_process_is_flat_and_small(tmp_path: Path) -> None:
    async with picker_process(tmp_path, POOL) as process:
        before = memory(process.pid).resident
        await asyncio.to_thread(_send, process, 0, FILLED)
        filled = memory(process.pid).resident
        await asyncio.to_thread(_send, process, FILLED, PROMPTS)
        at_the_end = memory(process.pid).resident
        (pool,) = (await process.get("/pools")).json()["pools"]
    held = sum(endpoint["prefixChunks"] for endpoint in pool["endpoints"])
    room = sum(endpoint["prefixCapacity"] for endpoint in pool["endpoints"])
    figures = f"{before / 1e6:.1f} MB, {filled / 1e6:.1f} when filled, {at_the_end / 1e6:.1f} at the end; {held} chunks"
    log.info(figures)
    assert room < held <= 2 * room, figures
    assert filled > before + 20_000_000, figures
    assert at_the_end < filled + GROWTH, figures
    assert at_the_end < MOST, figures


def _send(process: PickerProcess, start: int, end: int) -> None:
    """Have prompts picked for and answered, each another from its first byte on. Blocks."""
    with ExitStack() as stack:
        ends = stack.enter_context(process.completions.open("ab"))
        connections = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.connect(str(process.socket))
        for first in range(start, end, CONNECTIONS):
            numbers = range(first, min(first + CONNECTIONS, end))
            for number, connection in zip(numbers, connections, strict=False):
                connection.sendall(_request(number))
            for number, connection in zip(numbers, connections, strict=False):
                ends.write(_end(number, connection.recv(4096)))
            ends.flush()


def _request(number: int) -> bytes:
    said = b"%016x " % number * (SIZE // 17)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % said
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-infergate-pool: llm/gpu\r\nx-request-id: %d\r\n"
        b"x-infergate-request: %032x\r\nx-infergate-then: @serve\r\ncontent-length: %d\r\n\r\n"
    )
    return head % (number, number, len(body)) + body


def _end(number: int, answer: bytes) -> bytes:
    address = answer.partition(ENDPOINT)[2].partition(b"\r\n")[0].decode()
    assert address, answer
    completion = Completion(f"{number:032x}", "llm/gpu", address, "", 200, "200 : 200", 0.05, 0.04, None, 1000)
    return msgspec.json.encode(completion) + b"\n"
