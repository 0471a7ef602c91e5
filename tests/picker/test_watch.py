"""What a policy's `health` changes, while requests are in flight."""

import asyncio

import pytest

from controller.picker.flow_control.settings import UtilizationDetectorRef
from controller.picker.overdue import miss_overdue
from controller.picker.policies import admissions
from controller.picker.scrape import Scraper
from controller.picker.watch import Watch, watch_of
from controller.plugins.types import Admission, AppliedPolicy, DetectorConfig, FlowControlConfig, Health
from controller.pools import Pool, PoolEndpoint, pools_of

from .conftest import Picker
from .test_scrape import Pages


@pytest.mark.parametrize(
    ("health", "interval", "staleness"),
    [
        (Health(), 2, 5),
        (Health(scrape_interval=0.5), 0.5, 5),
        (Health(metrics_staleness_threshold=60), 2, 60),
        # What the policy says is kept; the process's own gives way.
        (Health(scrape_interval=10), 10, 10),
        (Health(metrics_staleness_threshold=1), 1, 1),
    ],
)
def test_readings_come_before_they_are_too_old(health: Health, interval: float, staleness: float) -> None:
    found = watch_of(health, default=Watch(scrape_interval=2, staleness=5))
    assert (found.scrape_interval, found.staleness) == (interval, staleness)


def test_staleness_of_a_policy_counts_at_once_and_counts_in_flight_stay(picker: Picker) -> None:
    picker.serve("a", "b")
    for name in "ab":
        picker.read(name)
    picker.clock.pass_(2)
    picker.read("b")
    first = {picker.pick(str(n)) for n in range(4)}
    picker.serve("a", "b", health=Health(metrics_staleness_threshold=1))
    assert first == {"a", "b"}
    assert picker.count("a") == 2
    assert {picker.pick(str(n)) for n in range(10, 14)} == {"b"}


def test_first_byte_timeout_of_a_policy_counts_for_requests_under_way(picker: Picker) -> None:
    picker.serve("a", "b")
    hung = picker.pick("1", prompt=b"x" * 400_000, is_streamed=True)
    picker.clock.pass_(5)
    picker.serve("a", "b", health=Health(first_byte_timeout=4))
    miss_overdue(picker.endpoint(hung), now=picker.clock())
    assert picker.endpoint(hung).health.pause > 0


def test_first_byte_timeout_may_be_longer_than_the_default(picker: Picker) -> None:
    picker.serve("a", health=Health(first_byte_timeout=120))
    picker.pick("1", is_streamed=True)
    picker.clock.pass_(100)
    miss_overdue(picker.endpoint("a"), now=picker.clock())
    assert picker.endpoint("a").health.pause == 0


def test_endpoint_of_two_pools_is_scraped_as_often_as_one_of_them_asks(picker: Picker) -> None:
    endpoint = PoolEndpoint("a:8000", "llm/a", uid="1")
    health = Health(scrape_interval=0.25, first_byte_timeout=5)
    strict = Pool("llm/strict", (endpoint,), policy=AppliedPolicy(health=health))
    picker.table.apply(pools_of((strict, Pool("llm/lax", (endpoint,)))))
    assert (picker.endpoint("a").scrape_interval, picker.endpoint("a").patience) == (0.25, 5)
    # A request of the other pool may take longer.
    picker.pick("1", pool="llm/lax", is_streamed=True)
    picker.clock.pass_(10)
    miss_overdue(picker.endpoint("a"), now=picker.clock())
    assert picker.endpoint("a").health.pause == 0


async def test_interval_of_a_policy_counts_before_the_last_one_is_over(picker: Picker) -> None:
    slept: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        slept.put_nowait(seconds)
        if seconds:
            await asyncio.Event().wait()

    scraper = Scraper(table=picker.table, in_flight=picker.in_flight, pages=Pages(), clock=picker.clock, sleep=sleep)
    picker.serve("a", health=Health(scrape_interval=60, metrics_staleness_threshold=60))
    scraper.follow()
    async with asyncio.timeout(5):
        assert [await slept.get() for _ in range(2)] == [0.0, 60.0]
    picker.serve("a", health=Health(scrape_interval=0.5))
    scraper.follow()
    scraper.follow()
    async with asyncio.timeout(5):
        assert 0 < await slept.get() <= 0.5
    assert slept.empty()
    await scraper.stop()


@pytest.mark.parametrize(
    ("own", "health", "threshold"),
    [
        ({}, Health(), 3.0),
        ({}, Health(scrape_interval=5, metrics_staleness_threshold=20), 20.0),
        ({"metricsStalenessThreshold": 2}, Health(), 2.0),
        # That of the reference, which scrapes more often.
        ({"metricsStalenessThreshold": 0.2}, Health(), 1.0),
    ],
)
def test_detector_believes_readings_until_the_next_comes(
    picker: Picker, own: dict[str, float], health: Health, threshold: float
) -> None:
    detector = DetectorConfig("utilization-detector", own)
    admission = Admission(FlowControlConfig(saturation_detector=detector), default_priority=1)
    policy = AppliedPolicy(admission=admission, health=health)
    picker.table.apply(pools_of((Pool("llm/gpu", policy=policy),)))
    found = admissions(picker.table.pools.values())["llm/gpu"].flow_control.saturation_detector
    assert isinstance(found, UtilizationDetectorRef)
    assert found.parameters.metrics_staleness_threshold == threshold
