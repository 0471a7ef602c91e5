"""Who waits, who goes first and who has to make room."""

from typing import Any

import pytest

from controller.picker.flow_control.queue import PoolQueue, QueueFull, counts_of
from controller.picker.flow_control.refusals import Drop
from controller.picker.flow_control.settings import MOST_BANDS, FlowControlSettings
from controller.picker.flow_control.tickets import Waiting

from .conftest import ticket, waiting_of


def queue_of(**settings: Any) -> PoolQueue:  # Any: as in the YAML
    return PoolQueue(FlowControlSettings.model_validate(settings))


def enter(queue: PoolQueue, priority: int = 0, *, now: float = 0.0, **more: Any) -> Waiting:  # Any: see ticket
    """Take a request in for which nobody has to make room."""
    waiting = waiting_of(ticket(priority, **more), now)
    assert queue.enter(waiting, expires=now + 60) == ()
    return waiting


def released(queue: PoolQueue) -> list[Waiting]:
    return list(queue.release(lambda band: True))


def test_higher_bands_go_first_and_arrivals_in_order() -> None:
    queue = queue_of()
    low, first, second, high = (enter(queue, priority) for priority in (-1, 0, 0, 5))
    assert released(queue) == [high, first, second, low]
    assert (queue.count, queue.size, queue.bands, queue.next_expiry()) == (0, 0, (), None)


def test_tenants_take_turns() -> None:
    queue = queue_of()
    for tenant in "aaaaabbc":
        enter(queue, tenant=tenant)
    assert "".join(one.tenant for one in released(queue)) == "abcabaaa"


def test_tenant_that_comes_does_not_go_before_those_who_are_there() -> None:
    queue = queue_of()
    for tenant in "aabb":
        enter(queue, tenant=tenant)
    turns = queue.release(lambda band: True)
    order = [next(iter(turns)).tenant]
    enter(queue, tenant="c")
    order += [one.tenant for one in released(queue)]
    assert "".join(order) == "abacb"


def test_global_strict_knows_no_tenants() -> None:
    queue = queue_of(defaultPriorityBand={"fairnessPolicyRef": "global-strict-fairness-policy"})
    for tenant in "aaab":
        enter(queue, tenant=tenant)
    assert "".join(one.tenant for one in released(queue)) == "aaab"


@pytest.mark.parametrize("fairness", ["global-strict-fairness-policy", "round-robin-fairness-policy"])
def test_earliest_deadline_goes_first(fairness: str) -> None:
    band = {"orderingPolicyRef": "slo-deadline-ordering-policy", "fairnessPolicyRef": fairness}
    queue = queue_of(defaultPriorityBand=band)
    never = enter(queue)
    late, soon, late_too = (enter(queue, due=due) for due in (5.0, 1.0, 5.0))
    assert released(queue) == [soon, late, late_too, never]


def test_earliest_end_of_the_wait_goes_first() -> None:
    queue = queue_of(defaultPriorityBand={"orderingPolicyRef": "edf-ordering-policy"})
    patient, hasty, as_all = (enter(queue, now=now, ttl=ttl) for now, ttl in ((0.0, None), (5.0, 10.0), (1.0, 600.0)))
    assert released(queue) == [hasty, patient, as_all]


def test_blocked_band_stops_none_that_could_run() -> None:
    queue = queue_of()
    high, low = enter(queue, 5), enter(queue, 0)
    assert list(queue.release(lambda band: band.priority < 5)) == [low]
    assert released(queue) == [high]


@pytest.mark.parametrize(
    "settings",
    [
        {"defaultPriorityBand": {"maxRequests": 3}},
        {"defaultPriorityBand": {"maxBytes": 30}},
        {"maxRequests": 3},
        {"maxBytes": 30},
    ],
)
def test_full_queue_takes_nobody(settings: dict[str, object]) -> None:
    queue = queue_of(**settings)
    for _ in range(3):
        enter(queue, size=10)
    with pytest.raises(QueueFull):
        enter(queue, size=10)
    assert counts_of(queue) == {0: (3, 30)}


def test_band_that_is_full_does_not_fill_the_others() -> None:
    queue = queue_of(defaultPriorityBand={"maxRequests": 1})
    enter(queue, 0)
    enter(queue, 1)
    with pytest.raises(QueueFull):
        enter(queue, 1)


def test_higher_band_displaces_the_last_of_the_lowest() -> None:
    queue = queue_of(maxRequests=3)
    low, lowest, last = enter(queue, 0), enter(queue, -1), enter(queue, -1)
    assert queue.enter(waiting_of(ticket(5)), expires=60) == ((last, Drop.DISPLACED),)
    assert queue.enter(waiting_of(ticket(5)), expires=60) == ((lowest, Drop.DISPLACED),)
    assert queue.enter(waiting_of(ticket(5)), expires=60) == ((low, Drop.DISPLACED),)
    with pytest.raises(QueueFull):
        queue.enter(waiting_of(ticket(5)), expires=60)
    with pytest.raises(QueueFull):
        queue.enter(waiting_of(ticket(0)), expires=60)


def test_last_to_come_is_displaced_whoever_sent_it() -> None:
    queue = queue_of(maxRequests=3)
    waiting = [enter(queue, tenant=tenant) for tenant in "abc"]
    dropped = [queue.enter(waiting_of(ticket(5)), expires=60) for _ in waiting]
    assert [victim for ((victim, _),) in dropped] == waiting[::-1]


def test_large_request_displaces_as_many_as_its_bytes_need_or_none() -> None:
    queue = queue_of(maxBytes=30)
    others = [enter(queue, 0, size=10) for _ in range(3)]
    with pytest.raises(QueueFull):
        queue.enter(waiting_of(ticket(5, size=31)), expires=60)
    assert queue.count == 3
    dropped = queue.enter(waiting_of(ticket(5, size=15)), expires=60)
    assert [victim for victim, _ in dropped] == [others[2], others[1]]


@pytest.mark.parametrize("settings", [{"defaultPriorityBand": {"maxRequests": 4}}, {"maxRequests": 4}])
def test_tenant_with_most_requests_makes_room_for_others(settings: dict[str, object]) -> None:
    queue = queue_of(**settings)
    for tenant in "aaab":
        enter(queue, tenant=tenant)
    dropped = queue.enter(waiting_of(ticket(tenant="c")), expires=60)
    assert [(victim.tenant, why) for victim, why in dropped] == [("a", Drop.CROWDED_OUT)]
    with pytest.raises(QueueFull):
        queue.enter(waiting_of(ticket(tenant="b")), expires=60)
    with pytest.raises(QueueFull):
        queue.enter(waiting_of(ticket(tenant="a")), expires=60)


def test_bands_are_bounded_and_the_rest_go_to_the_next_lower_one() -> None:
    queue = queue_of()
    for priority in range(0, 10 * MOST_BANDS, 10):
        enter(queue, priority)
    assert [enter(queue, priority).band for priority in (15, 10**6, -5)] == [10, 10 * (MOST_BANDS - 1), 0]
    assert len(queue.bands) == MOST_BANDS


def test_band_that_refuses_its_first_request_is_not_left_behind() -> None:
    queue = queue_of(defaultPriorityBand={"maxBytes": 10})
    with pytest.raises(QueueFull):
        enter(queue, 3, size=11)
    assert queue.bands == ()


def test_requests_expire_in_order_and_withdrawn_ones_do_not() -> None:
    queue = queue_of()
    first, second, third = (enter(queue, now=now) for now in (0.0, 1.0, 2.0))
    queue.withdraw(first)
    assert queue.next_expiry() == 61.0
    assert list(queue.expire(61.5)) == [second]
    assert list(queue.expire(70.0)) == [third]


def test_other_settings_keep_who_waits_in_order() -> None:
    queue = queue_of()
    first, high, second = enter(queue, tenant="a"), enter(queue, 5), enter(queue, tenant="b")
    global_strict = {"fairnessPolicyRef": "global-strict-fairness-policy"}
    queue.configure(FlowControlSettings.model_validate({"maxRequests": 1, "defaultPriorityBand": global_strict}))
    with pytest.raises(QueueFull):
        enter(queue)
    assert released(queue) == [high, first, second]


@pytest.mark.parametrize("ordering", ["fcfs-ordering-policy", "slo-deadline-ordering-policy"])
def test_hang_ups_leave_nothing_behind(ordering: str) -> None:
    queue = queue_of(defaultPriorityBand={"orderingPolicyRef": ordering})
    staying = enter(queue)
    for n in range(1000):
        queue.withdraw(enter(queue, due=float(n), tenant=str(n)))
    assert len(queue._expiries) < 50
    assert released(queue) == [staying]
