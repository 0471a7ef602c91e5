"""Retry-After from the speed of the queue."""

import pytest

from controller.picker.flow_control.drain import LONGEST, UNKNOWN, DrainMeter


def metered(*, per_second: float, seconds: int) -> DrainMeter:
    meter = DrainMeter()
    meter.advance(now=0, is_waiting=True)
    for n in range(1, seconds * 10 + 1):
        meter.advance(
            now=n / 10, is_waiting=True, released=round(n * per_second / 10) - round((n - 1) * per_second / 10)
        )
    return meter


@pytest.mark.parametrize("seconds", [2, 60])
@pytest.mark.parametrize(
    ("per_second", "ahead", "expected"), [(10, 99, 10), (2, 39, 20), (100, 0, 1), (1, 999, LONGEST)]
)
def test_estimate_follows_the_drain_rate(per_second: float, ahead: int, expected: int, seconds: int) -> None:
    assert metered(per_second=per_second, seconds=seconds).retry_after(ahead) == pytest.approx(
        expected, rel=0.15, abs=1
    )


def test_nothing_is_claimed_while_nothing_is_known() -> None:
    assert DrainMeter().retry_after(1000) == UNKNOWN


def test_queue_that_stands_still_takes_longest() -> None:
    meter = metered(per_second=10, seconds=10)
    meter.advance(now=200, is_waiting=True)
    assert meter.retry_after(0) == LONGEST


def test_time_without_a_queue_says_nothing() -> None:
    meter = metered(per_second=10, seconds=10)
    meter.advance(now=10, is_waiting=False)
    meter.advance(now=10_000, is_waiting=True)
    assert meter.retry_after(99) == pytest.approx(10, abs=1)
