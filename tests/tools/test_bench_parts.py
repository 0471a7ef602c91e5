import asyncio
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from tools.bench.bodies import chat_body
from tools.bench.failures import CannotMeasure
from tools.bench.load import Job, Load, load_generator
from tools.bench.pick_times import parse as parse_pick_times
from tools.bench.pick_times import within
from tools.bench.processes import (
    Memory,
    Role,
    Stat,
    cpu_seconds,
    descendants,
    memory,
    parse_rollup,
    parse_schedstat,
    parse_stat,
    role_of,
)
from tools.bench.report import Bar, Outcome, Table, show, show_table
from tools.bench.resources import Routes
from tools.bench.samples import Spread, percentile, spread

ROLLUP = """\
55d0c0000000-7ffc0a7f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               61000 kB
Pss:               45500 kB
Pss_Dirty:         40000 kB
"""


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.5),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
        ([float(value) for value in range(101)], 0.95, 95.0),
    ],
)
def test_percentile_lies_between_the_two_nearest_values(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_spread_is_the_median_between_its_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 0.5)


def test_stat_of_a_process_with_spaces_and_parentheses_in_its_name() -> None:
    text = "4711 (nginx: (odd) w) S 4700 1 1 0 -1 4194304 900 0 0 0 120 34 0 0 20 0 1 0 5000 1000 200"
    assert parse_stat(text) == Stat(pid=4711, parent=4700, ticks=154)


def test_stat_of_something_else_is_an_error() -> None:
    with pytest.raises(ValueError, match="not the text"):
        parse_stat("4711 (nginx) S 1")


def test_schedstat_begins_with_the_nanoseconds_run() -> None:
    assert parse_schedstat("36252425 297283 22\n") == 36252425


def test_rollup_gives_bytes() -> None:
    assert parse_rollup(ROLLUP) == Memory(resident=61_000 * 1024, proportional=45_500 * 1024)


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("nginx: master process nginx -p state/", Role.NGINX_MASTER),
        ("nginx: worker process", Role.NGINX_WORKER),
        ("nginx: worker process is shutting down", Role.NGINX_WORKER),
        ("python -m controller --log-format bare picker --socket run/picker.sock", Role.PICKER),
        ("nginx -t -q -p state/", Role.CONTROLLER),
    ],
)
def test_role_follows_from_the_command_line(command: str, role: Role) -> None:
    assert role_of(command) is role


def test_descendants_are_found_at_any_depth_and_others_are_not() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert descendants(2, parents) == (2, 3, 4)


def test_this_process_uses_time_and_memory() -> None:
    status = int(Path("/proc/self/stat").read_text().split()[0])
    assert cpu_seconds(status) > 0
    assert memory(status).resident >= memory(status).proportional // 2 > 0


@pytest.mark.parametrize("size", [400, 1_000, 16_000, 200_000])
def test_body_is_a_chat_request_of_exactly_its_size(size: int) -> None:
    body = chat_body(size, seed=3)
    assert len(body) == size
    assert {message["role"] for message in json.loads(body)["messages"]} <= {"system", "user", "assistant"}
    assert body == chat_body(size, seed=3)
    assert body != chat_body(size, seed=4)


def test_body_without_room_for_a_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be of 100 bytes"):
        chat_body(100)


def test_saved_route_is_the_only_file_that_differs(tmp_path: Path) -> None:
    routes = Routes(tmp_path, count=3, backend=9000)
    routes.write()
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    routes.save(1, revision=7)
    after = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["route-0001.yaml"]


def test_missed_bar_is_said_clearly() -> None:
    bars = (Bar("memory", 130.0, 120, "MB"), Bar("time", 0.5, 1, "s"))
    lines = show(Outcome(figures={}, tables=(), bars=bars)).splitlines()
    assert lines[-2:] == ["memory    130   120 MB  over the bar", "time      0.5      1 s        within"]


def test_table_aligns_its_columns() -> None:
    table = Table("Sizes", ("body", "bytes"), (("small", "1"), ("large", "200")))
    assert show_table(table).splitlines() == ["Sizes", "body   bytes", "-----  -----", "small      1", "large    200"]


async def test_load_generator_counts_answers() -> None:
    load = await _load_on("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert load.requests > 2
    assert load.failed == 0


async def test_errors_are_no_answers() -> None:
    with pytest.raises(CannotMeasure, match="no request"):
        await _load_on("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello")


async def test_load_generator_waits_for_the_whole_answer() -> None:
    load = await _load_on("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n" + "x" * 60_000)
    assert load.failed == 0
    assert 0 < load.median <= load.p99


async def _load_on(answer: str) -> Load:
    """A short load on a server that answers every request alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(500)
                writer.write(answer.encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    job = Job(port=port, host="a.example", body_size=500, connections=2, seconds=0.1)
    async with server:
        with load_generator() as load:
            return await asyncio.to_thread(load.run, job)


def test_share_of_picks_was_made_within_a_time_inside_a_bucket() -> None:
    name = "infergate_scheduler_e2e_duration_seconds_bucket"
    page = f'{name}{{le="0.0001"}} 90.0\n{name}{{le="0.0002"}} 100.0\n{name}{{le="+Inf"}} 100.0\nother 7.0\n'
    times = parse_pick_times(page)
    assert times == {0.0001: 90, 0.0002: 10, math.inf: 0}
    assert within(times, 0.99) == pytest.approx(0.00019)
    assert within(times, 0.45) == pytest.approx(0.000075)
    assert within(times - times, 0.99) is None


def test_picks_above_the_last_bound_took_at_least_that() -> None:
    assert within(Counter({0.05: 1, math.inf: 9}), 0.99) == 0.05
