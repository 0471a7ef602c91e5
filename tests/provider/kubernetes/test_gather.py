"""When changes are passed on. Seconds pass when something waits for them."""

import asyncio
from dataclasses import dataclass, field

import pytest

from controller.provider.kubernetes.gather import Gather


@dataclass
class _Time:
    """A clock, and the times at which something changes."""

    changes: list[float] = field(default_factory=list)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.gather = Gather(quiet=0.05, longest=0.2, stream=1.0, clock=lambda: self.now, sleep=self.pass_by)

    async def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while self.changes and self.changes[0] <= end:
            self.now = self.changes.pop(0)
            self.gather.touch()
        self.now = end

    async def passed_on(self) -> float:
        """Seconds until changes are passed on, from being asked."""
        asked = self.now
        await self.gather.changed()
        return self.now - asked


def _beat(begin: float, *, every: float = 0.01) -> list[float]:
    """Changes that keep coming for long."""
    return [begin + every * number for number in range(1000)]


async def _after_work(time: _Time, *, took: float, changes: list[float]) -> float:
    """Seconds until what comes next is passed on, after a first change and the work on it."""
    time.gather.touch()
    await time.gather.changed()
    time.changes = [time.now + change for change in changes]
    await time.pass_by(took)
    return await time.passed_on()


async def test_change_after_a_quiet_time_waits_for_a_moment() -> None:
    time = _Time()
    time.gather.touch()

    assert await time.passed_on() == pytest.approx(0.05)


async def test_time_of_the_first_change_is_told() -> None:
    time = _Time(changes=[100.03])
    time.gather.touch()

    assert await time.gather.changed() == 100.0
    assert time.now == pytest.approx(100.08)


async def test_changes_that_keep_coming_are_passed_on_in_time() -> None:
    time = _Time(changes=_beat(100.01))
    time.gather.touch()

    assert await time.passed_on() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("took", "seconds"),
    [(0.01, 0.2), (0.05, 0.4), (0.1, 0.8), (3.0, 1.0)],
    ids=["no less than any change", "in proportion", "in proportion too", "no longer than its bound"],
)
async def test_stream_is_gathered_for_longer_than_the_work_on_it_took(took: float, seconds: float) -> None:
    assert await _after_work(_Time(), took=took, changes=_beat(0.005)) == pytest.approx(seconds)


@pytest.mark.parametrize(("took", "seconds"), [(0.02, 0.05), (0.1, 0.1), (3.0, 1.0)])
async def test_end_of_a_stream_is_passed_on_when_it_was_quiet_as_long_as_the_work_took(
    took: float, seconds: float
) -> None:
    assert await _after_work(_Time(), took=took, changes=[0.01]) == pytest.approx(seconds)


async def test_change_after_the_work_is_no_stream() -> None:
    time = _Time()
    time.gather.touch()
    await time.gather.changed()
    await time.pass_by(3.0)
    waiting = asyncio.create_task(time.passed_on())
    await asyncio.sleep(0)  # it waits for a change
    time.gather.touch()

    assert await asyncio.wait_for(waiting, 5) == pytest.approx(0.05)


async def _stream() -> _Time:
    """A stream under way: changes came while the first one was dealt with."""
    time = _Time()
    time.gather.touch()
    await time.gather.changed()
    time.gather.touch()
    await time.gather.changed()
    return time


async def test_work_that_can_wait_does_so_until_a_stream_ends() -> None:
    time = await _stream()
    waiting = asyncio.create_task(time.gather.calm(longest=600.0))
    await asyncio.sleep(0)
    assert not waiting.done()

    # Nothing came while the last ones were dealt with.
    next_change = asyncio.create_task(time.gather.changed())
    await asyncio.wait_for(waiting, 5)
    next_change.cancel()


async def test_work_that_can_wait_does_so_no_longer_than_its_bound() -> None:
    time = await _stream()
    await time.pass_by(3.0)

    await asyncio.wait_for(time.gather.calm(longest=3.0), 5)


async def test_work_that_can_wait_goes_on_where_there_is_no_stream() -> None:
    time = _Time()
    time.gather.touch()
    await time.gather.changed()

    await asyncio.wait_for(time.gather.calm(longest=600.0), 5)
