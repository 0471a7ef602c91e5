import asyncio
import logging
from collections.abc import Callable

import pytest
import uvloop

from controller.picker.endpoints import Metrics
from controller.picker.inflight import LONGEST, SHORT_SCRAPES
from controller.picker.pages import HttpPages, Page, ScrapeFailed
from controller.picker.scrape import Scraper
from controller.pools import Engine

from .conftest import Picker

PAGE = b"vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n"


class Pages:
    """Pages by address; an address without one fails."""

    def __init__(self, **pages: Page) -> None:
        self.pages = {f"{name}:8000": page for name, page in pages.items()}
        self.forgotten: list[str] = []

    async def get(self, address: str) -> Page:
        if address not in self.pages:
            raise ScrapeFailed(address)
        return self.pages[address]

    def forget(self, address: str) -> None:
        self.forgotten.append(address)


def scraper_of(picker: Picker, pages: Pages) -> Scraper:
    return Scraper(table=picker.table, in_flight=picker.in_flight, pages=pages, clock=picker.clock)


async def test_scrape_is_a_reading(picker: Picker) -> None:
    picker.serve("a")
    await scraper_of(picker, Pages(a=Page(200, PAGE))).scrape(picker.endpoint("a"))
    endpoint = picker.endpoint("a")
    assert endpoint.reading is not None
    assert (endpoint.reading.running, endpoint.foreign, endpoint.metrics) == (2, 3, Metrics.READ)


@pytest.mark.parametrize("status", [404, 501, 403])
async def test_load_source_that_answers_404_is_reported_and_not_read_as_0(
    picker: Picker, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    picker.serve("a", "b")
    scraper = scraper_of(picker, Pages(a=Page(status, b""), b=Page(200, PAGE)))
    for _ in range(3):
        await scraper.scrape(picker.endpoint("a"))
        await scraper.scrape(picker.endpoint("b"))
    assert picker.endpoint("a").metrics is Metrics.MISSING
    assert picker.endpoint("a").reading is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    # The one that is read has a queue.
    assert [picker.pick(str(n)) for n in range(3)] == ["a", "a", "a"]


@pytest.mark.parametrize("page", [b"hello", b"", b"vllm:num_requests_running{\n", b"\xff\x00"])
async def test_page_that_is_not_understood_is_reported(picker: Picker, page: bytes) -> None:
    picker.serve("a")
    await scraper_of(picker, Pages(a=Page(200, page))).scrape(picker.endpoint("a"))
    assert picker.endpoint("a").metrics is Metrics.UNKNOWN


async def test_engine_of_the_label_is_believed(picker: Picker) -> None:
    picker.serve("a", engine=Engine.SGLANG)
    await scraper_of(picker, Pages(a=Page(200, PAGE))).scrape(picker.endpoint("a"))
    assert picker.endpoint("a").metrics is Metrics.UNKNOWN


@pytest.mark.parametrize("page", [None, Page(500, b""), Page(503, b"")])
async def test_scrape_without_an_answer_lets_the_reading_age(picker: Picker, page: Page | None) -> None:
    picker.serve("a")
    picker.read("a", running=7)
    picker.clock.pass_(2)
    pages = Pages(a=page) if page else Pages()
    await scraper_of(picker, pages).scrape(picker.endpoint("a"))
    endpoint = picker.endpoint("a")
    assert endpoint.reading is not None
    assert (endpoint.answered_at, endpoint.scrape_failures) == (picker.clock() - 2, 1)


async def test_lost_completion_is_found_by_scraping(picker: Picker) -> None:
    picker.serve("a")
    for n in range(5):
        picker.pick(str(n))
    scraper = scraper_of(picker, Pages(a=Page(200, PAGE)))
    for _ in range(SHORT_SCRAPES):
        picker.clock.pass_(1)
        await scraper.scrape(picker.endpoint("a"))
    assert (picker.count("a"), picker.in_flight.expired) == (3, 2)


@pytest.mark.parametrize("page", [Page(404, b""), Page(200, b"hello")])
async def test_lost_completion_is_no_more_after_an_hour_where_there_are_no_metrics(picker: Picker, page: Page) -> None:
    picker.serve("a")
    picker.pick("old")
    scraper = scraper_of(picker, Pages(a=page))
    picker.clock.pass_(LONGEST)
    picker.pick("new")
    await scraper.scrape(picker.endpoint("a"))
    assert (picker.count("a"), picker.in_flight.expired) == (2, 0)

    picker.clock.pass_(1)
    await scraper.scrape(picker.endpoint("a"))

    assert (picker.count("a"), picker.in_flight.expired) == (1, 1)
    assert picker.in_flight.was_released("old"), "an answer that took longer is known when it ends"


async def test_half_a_reading_expires_nothing(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    scraper = scraper_of(picker, Pages(a=Page(200, b"vllm:num_requests_running 0\n")))
    for _ in range(20):
        picker.clock.pass_(1)
        await scraper.scrape(picker.endpoint("a"))
    assert picker.count("a") == 1


async def test_scrapes_are_spread_over_the_interval(picker: Picker) -> None:
    picker.serve(*"abcdefghij")
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await asyncio.Event().wait()

    pages = Pages()
    scraper = Scraper(table=picker.table, in_flight=picker.in_flight, pages=pages, clock=picker.clock, sleep=sleep)
    scraper.follow()
    await asyncio.sleep(0)
    await scraper.stop()
    gaps = [b - a for a, b in zip(sorted(delays), [*sorted(delays)[1:], 1.0], strict=True)]
    assert len(delays) == 10
    assert max(gaps) < 0.2
    assert len(pages.forgotten) == 10


async def answer(raw: bytes, *, pieces: int = 1) -> Page:
    """The page that comes of an answer on a real connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        step = max(1, len(raw) // pieces)
        for start in range(0, len(raw), step):
            writer.write(raw[start : start + step])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pages = HttpPages()
    try:
        return await pages.get(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        for address in list(pages._connections):
            pages.forget(address)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    ],
)
@pytest.mark.parametrize("pieces", [1, 9])
async def test_page_over_a_real_connection(raw: bytes, pieces: int) -> None:
    assert await answer(raw, pieces=pieces) == Page(200, b"hello")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000,
    ],
)
async def test_answer_that_is_no_page_fails(raw: bytes) -> None:
    with pytest.raises(ScrapeFailed):
        await answer(raw)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connection_is_used_again(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use_a_connection_twice())


async def use_a_connection_twice() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pages = HttpPages()
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert [(await pages.get(address)).body for _ in range(2)] == [b"ok", b"ok"]
    assert connections == 1
    server.close()
    pages.forget(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:x", "[::1]:1"])
async def test_address_that_cannot_be_reached_fails(address: str) -> None:
    with pytest.raises(ScrapeFailed):
        await HttpPages().get(address)
