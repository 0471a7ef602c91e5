"""Admission to one pool: capacity, waits and their ends."""

from controller.picker.flow_control.gate import Gate
from controller.picker.flow_control.refusals import Drop
from controller.picker.flow_control.settings import LONGEST_WAIT
from controller.picker.flow_control.tickets import Stage, Waiting

from .conftest import Entrance, Pod, Pods, entrance, policy_of, ticket, waiting_of


def wait(entrance: Entrance, priority: int = 0, **more: object) -> Waiting:
    """Ask for a request that has to wait."""
    waiting = entrance.ask(ticket(priority, **more))  # type: ignore[arg-type]  # passed on
    assert isinstance(waiting, Waiting)
    return waiting


def test_50_at_once_do_not_pass_a_limit_of_requests() -> None:
    door = entrance(pods=2, slots=4)
    admitted = sum(door.ask(ticket()) is None for _ in range(50))
    assert admitted == door.pods.in_flight == 8


def test_50_at_once_pass_a_limit_of_tokens_by_one_estimate_at_most() -> None:
    door = entrance(tokens=100)
    for _ in range(50):
        door.ask(ticket(tokens=30))
    assert sum(door.pods.pods[0].requests) == 120


def test_one_step_releases_as_many_as_there_is_room_for() -> None:
    door = entrance(slots=4)
    for _ in range(10):
        door.ask(ticket())
    door.pods.pods[0].requests.clear()
    assert len(door.step()) == 4
    assert door.gate.queue.count == 2


def test_released_requests_count_until_they_are_picked_for() -> None:
    door = entrance(slots=4)
    for _ in range(12):
        door.ask(ticket())
    door.pods.pods[0].requests.clear()
    released = [*door.gate.step(0.0).released, *door.gate.step(0.0).released]
    assert len(released) == door.gate.granted == 4
    assert isinstance(door.ask(ticket()), Waiting)


def test_release_that_nobody_takes_goes_to_the_next() -> None:
    door = entrance()
    door.ask(ticket())
    first, second = wait(door), wait(door)
    door.pods.pods[0].requests.clear()
    assert door.gate.step(0.0).released == (first,)
    assert door.gate.withdraw(first, now=0.0)
    assert door.gate.step(0.0).released == (second,)
    assert not door.gate.withdraw(first, now=0.0)


def test_release_that_nobody_takes_is_room_again() -> None:
    door = entrance()
    door.ask(ticket())
    waiting = wait(door)
    door.pods.pods[0].requests.clear()
    door.gate.step(0.0)
    door.gate.step(0.0)
    door.gate.withdraw(waiting, now=0.0)
    assert door.ask(ticket()) is None


def test_free_pool_is_measured_once_in_a_while() -> None:
    door = entrance(slots=10**6)
    for n in range(1000):
        door.now = n / 1000
        assert door.ask(ticket()) is None
    assert door.pods.measures <= 11


def test_full_pool_is_not_measured_for_every_request_that_is_shed() -> None:
    door = entrance()
    door.ask(ticket())
    assert {door.ask(ticket(-1)) for _ in range(100)} == {Drop.SHED}
    assert door.pods.measures <= 2


def test_sheddable_work_runs_in_a_free_pool_and_is_refused_at_once_in_a_full_one() -> None:
    door = entrance()
    assert door.ask(ticket(-1)) is None
    assert door.ask(ticket(-1)) is Drop.SHED


def test_sheddable_work_waits_for_a_first_endpoint() -> None:
    door = entrance(pods=0)
    waiting = wait(door, -1)
    door.pods.pods.append(Pod())
    assert door.step() == [waiting]


def test_wait_ends_with_the_ttl() -> None:
    door = entrance(defaultRequestTTL="10s")
    door.ask(ticket())
    waiting, hasty = wait(door), wait(door, ttl=2.0)
    assert door.gate.step(1.9).dropped == ()
    assert door.gate.step(2.0).dropped == ((hasty, Drop.TTL),)
    assert door.gate.step(10.0).dropped == ((waiting, Drop.TTL),)


def test_ttl_of_a_request_does_not_lengthen_its_wait() -> None:
    door = entrance(defaultRequestTTL="10s")
    door.ask(ticket())
    waiting = wait(door, ttl=50.0)
    assert door.gate.step(10.0).dropped == ((waiting, Drop.TTL),)


def test_empty_pool_is_waited_for_then_503() -> None:
    door = entrance(pods=0, noEndpointRequestTTL="20s", defaultRequestTTL="5s")
    waiting = wait(door)
    assert door.gate.step(19.9).dropped == ()
    assert door.gate.step(20.0).dropped == ((waiting, Drop.NO_ENDPOINTS_TTL),)


def test_full_queue_of_an_empty_pool_is_503() -> None:
    door = entrance(pods=0, maxRequests=1)
    wait(door)
    assert door.ask(ticket()) is Drop.NO_ENDPOINTS


def test_endpoint_that_comes_late_gives_a_wait_for_capacity_but_never_beyond_the_longest() -> None:
    door = entrance(pods=0, noEndpointRequestTTL="70s", defaultRequestTTL="30s")
    first, second, third = wait(door), wait(door), wait(door)
    door.now = 60.0
    door.pods.pods.append(Pod())
    assert door.step() == [first]
    assert door.gate.step(LONGEST_WAIT - 0.1).dropped == ()
    assert door.gate.step(LONGEST_WAIT).dropped == ((second, Drop.TTL), (third, Drop.TTL))


def test_pool_that_comes_and_goes_holds_nobody_longer() -> None:
    door = entrance(pods=0)
    waiting = wait(door)
    door.ask(ticket(tenant="b"))
    for second in range(1, int(LONGEST_WAIT)):
        door.now = float(second)
        door.pods.pods[:] = [Pod([1])] if second % 2 else []
        assert door.step() == []
    assert waiting in [one for one, _ in door.gate.step(LONGEST_WAIT).dropped]


def test_lowest_band_is_refused_at_its_limit_rather_than_forgotten() -> None:
    door = entrance(defaultRequestTTL="10s")
    door.ask(ticket())
    low = wait(door)
    ends = []
    for second in range(1, 11):
        door.now = float(second)
        wait(door, 5)
        door.pods.pods[0].requests.clear()
        door.gate.changed()
        step = door.gate.step(door.now)
        ends += [one for one, drop in step.dropped if drop is Drop.TTL]
        for one in step.released:
            door.gate.resumed(one, now=door.now)
            door.pods.pick()
    assert ends == [low]


def test_capacity_above_a_ceiling_is_held_back_and_the_rest_served() -> None:
    bands = [{"priority": 5, "usageCeiling": 0.5}]
    door = entrance(slots=10, priorityBands=bands)
    assert sum(door.ask(ticket(5)) is None for _ in range(10)) == 5
    assert sum(door.ask(ticket(0)) is None for _ in range(10)) == 5
    door.pods.pods[0].requests.pop()
    assert [one.priority for one in door.step()] == [0]


def test_free_pool_lets_the_important_pass_those_that_wait() -> None:
    door = entrance(
        slots=4, defaultPriorityBand={"usageCeiling": 0.5}, priorityBands=[{"priority": 9, "usageCeiling": 1}]
    )
    assert [door.ask(ticket(0)) is None for _ in range(3)] == [True, True, False]
    assert door.ask(ticket(9)) is None


def test_stopped_gate_lets_nobody_wait() -> None:
    door = entrance()
    door.ask(ticket())
    waiting = wait(door)
    assert door.gate.stop(Drop.SHUTTING_DOWN, now=0.0).dropped == ((waiting, Drop.SHUTTING_DOWN),)
    assert door.ask(ticket()) is Drop.SHUTTING_DOWN
    door.pods.pods[0].requests.clear()
    door.gate.changed()
    assert door.ask(ticket()) is None


def test_other_policy_applies_to_those_who_wait() -> None:
    door = entrance(slots=1)
    door.ask(ticket())
    waiting = wait(door)
    door.gate.configure(policy_of(slots=1, defaultRequestTTL="5s"), now=1.0)
    assert waiting.expires == 5.0
    door.gate.configure(policy_of(slots=2), now=2.0)
    assert door.step() == [waiting]


def test_retry_after_follows_the_queue() -> None:
    door = entrance(slots=1)
    for _ in range(60):
        door.ask(ticket())
    for second in range(1, 21):
        door.now = second / 2
        door.complete()
    assert door.gate.queue.count == 39
    assert 17 <= door.gate.retry_after(Drop.QUEUE_FULL, 0) <= 23
    assert door.gate.retry_after(Drop.QUEUE_FULL, 9) == 1


def test_ends_are_counted_once() -> None:
    pods = Pods()
    gate = Gate(policy_of(maxRequests=1), pods.loads)
    assert gate.takes(0, tokens=0, now=0.0)
    pods.pick()
    waiting = waiting_of(ticket())
    gate.enter(waiting, now=0.0)
    gate.enter(waiting_of(ticket()), now=0.0)
    pods.pods[0].requests.clear()
    gate.step(3.0)
    gate.resumed(waiting, now=3.0)
    assert gate.counts.by_outcome() == {(0, "Dispatched"): 2, (0, "RejectedCapacity"): 1}
    assert gate.counts.drops == {(0, Drop.QUEUE_FULL): 1}
    assert waiting.stage is Stage.ENDED
