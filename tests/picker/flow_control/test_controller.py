"""The waiting side: tasks that wait, hang up and are released."""

import asyncio
import time
import tracemalloc

import pytest

from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.controller import RECHECK, FlowController
from controller.picker.flow_control.refusals import Drop, Refusal
from controller.picker.flow_control.settings import PoolPolicy
from controller.picker.flow_control.tickets import AT_ONCE, Admitted

from .conftest import POOL, Front, Pod, policy_of, ticket


async def refusal_of(task: "asyncio.Task[Admitted | Refusal]") -> Refusal:
    answer = await asyncio.wait_for(task, 5)
    assert isinstance(answer, Refusal)
    return answer


async def test_free_pool_admits_without_a_wait(front: Front) -> None:
    coroutine = front.control.admit(ticket())
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value is AT_ONCE
    assert front.timers == 0


async def test_pool_without_a_policy_admits_everybody(front: Front) -> None:
    assert await front.control.admit(ticket(pool="llm/other")) is AT_ONCE


async def test_waiting_requests_run_as_others_end(front: Front) -> None:
    first, second, third = (ticket() for _ in range(3))
    front.send(first, second, third)
    await front.settle()
    assert front.picked == [first.id]
    await front.complete()
    await front.complete()
    assert front.picked == [first.id, second.id, third.id]
    assert front.pods.in_flight == 1


async def test_50_tasks_at_once_do_not_pass_the_limit(front: Front) -> None:
    front.configure(slots=4)
    front.send(*(ticket() for _ in range(50)))
    await front.settle()
    assert front.pods.in_flight == 4
    front.pods.pods[0].requests.clear()
    for _ in range(3):
        front.control.changed(POOL)
    await front.settle()
    assert front.pods.in_flight == 4


async def test_50_tasks_at_once_pass_a_limit_of_tokens_by_one_estimate(front: Front) -> None:
    front.configure(tokens=100)
    front.send(*(ticket(tokens=30) for _ in range(50)))
    await front.settle()
    front.pods.pods[0].requests.clear()
    front.control.changed(POOL)
    front.control.changed(POOL)
    await front.settle()
    assert sum(front.pods.pods[0].requests) == 120


async def test_client_that_hangs_up_leaves_at_once_and_no_pod_sees_its_request(front: Front) -> None:
    gate = front.configure()
    hung_up = asyncio.Event()
    await front.request(ticket())
    leaving = ticket()
    task = asyncio.create_task(front.control.admit(leaving, hung_up.wait))
    await front.settle()
    assert gate.queue.count == 1
    hung_up.set()
    assert (await refusal_of(task)).drop is Drop.WITHDRAWN
    assert gate.queue.count == 0
    await front.complete()
    assert front.pods.in_flight == gate.granted == 0


async def test_cancelled_task_leaves_at_once(front: Front) -> None:
    gate = front.configure()
    _, cancelled, next_one = front.send(ticket(), ticket(), ticket())
    await front.settle()
    cancelled.cancel()
    front.pods.pods[0].requests.clear()
    front.control.changed(POOL)
    await front.settle()
    assert cancelled.cancelled()
    assert isinstance(next_one.result(), Admitted)
    assert (gate.queue.count, gate.granted) == (0, 0)


@pytest.mark.parametrize("how", ["cancel", "withdraw", "hang up"])
async def test_hang_up_after_the_release_hands_the_place_on(front: Front, how: str) -> None:
    gate = front.configure()
    hung_up = asyncio.Event()
    await front.request(ticket())
    leaving = ticket()
    task = asyncio.create_task(front.control.admit(leaving, hung_up.wait))
    await front.settle()
    (next_one,) = front.send(ticket())
    await front.settle()
    front.pods.pods[0].requests.clear()
    if how == "hang up":
        hung_up.set()
    front.control.changed(POOL)
    if how == "cancel":
        task.cancel()
    if how == "withdraw":
        front.control.withdraw(leaving.id)
    await front.settle()
    assert isinstance(next_one.result(), Admitted)
    assert (gate.granted, gate.queue.count, front.pods.in_flight) == (0, 0, 1)
    assert task.cancelled() or (await refusal_of(task)).drop is Drop.WITHDRAWN


async def test_nobody_watches_a_client_that_was_answered(front: Front) -> None:
    await front.request(ticket())
    tasks = asyncio.all_tasks()
    admitted = asyncio.create_task(front.control.admit(ticket(), asyncio.Event().wait))
    await front.settle()
    assert len(asyncio.all_tasks() - tasks) == 2
    await front.complete()
    assert admitted.done()
    assert asyncio.all_tasks() == tasks


async def test_failure_to_watch_a_client_counts_as_its_hang_up(front: Front) -> None:
    async def broken() -> None:
        raise OSError("no such client")

    await front.request(ticket())
    refusal = await refusal_of(asyncio.create_task(front.control.admit(ticket(), broken)))
    assert refusal.drop is Drop.WITHDRAWN


async def test_wait_ends_on_a_real_event_loop() -> None:
    loop = asyncio.get_running_loop()
    control = FlowController(
        loads=lambda pool, now: (), tenants=Tenants(b"key"), clock=time.monotonic, later=loop.call_later
    )
    control.apply({POOL: policy_of(noEndpointRequestTTL="20ms")})
    refusal = await refusal_of(asyncio.create_task(control.admit(ticket())))
    assert refusal.drop is Drop.NO_ENDPOINTS_TTL


async def test_withdrawing_what_does_not_wait_does_nothing(front: Front) -> None:
    front.control.withdraw("unknown")
    running = ticket()
    await front.request(running)
    front.control.withdraw(running.id)
    assert front.pods.in_flight == 1


async def test_wait_ends_with_the_ttl_by_one_timer(front: Front) -> None:
    front.configure(defaultRequestTTL="10s")
    _, *waiting = front.send(*(ticket() for _ in range(20)))
    await front.settle()
    assert front.timers == 1
    await front.pass_(9.9)
    assert not any(task.done() for task in waiting)
    await front.pass_(0.2)
    assert {(await refusal_of(task)).drop for task in waiting} == {Drop.TTL}
    await front.pass_(RECHECK)
    assert front.timers == 0


async def test_scaled_to_zero_waits_for_an_endpoint(front: Front) -> None:
    front.pods.pods.clear()
    front.control.changed(POOL)
    tasks = front.send(ticket(), ticket())
    await front.pass_(30)
    front.pods.pods.append(Pod())
    front.control.changed(POOL)
    await front.settle()
    assert isinstance(tasks[0].result(), Admitted)
    assert not tasks[1].done()
    tasks[1].cancel()


async def test_scaled_to_zero_then_503_with_retry_after(front: Front) -> None:
    front.configure(noEndpointRequestTTL="20s")
    front.pods.pods.clear()
    front.control.changed(POOL)
    (task,) = front.send(ticket())
    await front.settle()
    await front.pass_(20.1)
    refusal = await refusal_of(task)
    assert (refusal.status, refusal.drop) == (503, Drop.NO_ENDPOINTS_TTL)
    assert 1 <= refusal.retry_after <= 60


async def test_displaced_request_gets_its_refusal(front: Front) -> None:
    front.configure(maxRequests=1)
    _, low, high = front.send(ticket(), ticket(0), ticket(1))
    await front.settle()
    refusal = await refusal_of(low)
    assert (refusal.status, refusal.drop) == (429, Drop.DISPLACED)
    assert not high.done()
    high.cancel()


async def test_room_that_nobody_told_of_is_found(front: Front) -> None:
    _, waiting = front.send(ticket(), ticket())
    await front.settle()
    front.pods.pods[0].requests.clear()
    await front.pass_(RECHECK + 0.1)
    assert isinstance(waiting.result(), Admitted)


async def test_arrival_does_not_pass_those_for_whom_there_is_room(front: Front) -> None:
    front.configure(slots=2)
    front.send(*(ticket() for _ in range(3)))
    await front.settle()
    front.pods.pods[0].requests.clear()
    front.now += 0.5
    late = ticket()
    front.send(late)
    await front.settle()
    assert len(front.picked) == 4
    assert front.pods.in_flight == 2


async def test_stop_refuses_all_who_wait(front: Front) -> None:
    _, *waiting = front.send(*(ticket() for _ in range(5)))
    await front.settle()
    front.control.stop()
    refusals = [await refusal_of(task) for task in waiting]
    assert {(one.status, one.drop) for one in refusals} == {(503, Drop.SHUTTING_DOWN)}
    assert front.timers == 0
    assert (await refusal_of(front.send(ticket())[0])).drop is Drop.SHUTTING_DOWN


async def test_pool_that_is_no_more_ends_its_waits(front: Front) -> None:
    _, waiting = front.send(ticket(), ticket())
    await front.settle()
    front.pods.pods.clear()
    front.control.apply({"llm/other": PoolPolicy()})
    assert (await refusal_of(waiting)).status == 503
    assert set(front.control.gates) == {"llm/other"}


async def test_policy_that_is_no_more_lets_everybody_go(front: Front) -> None:
    gate = front.control.gates[POOL]
    _, gone, *waiting = front.send(*(ticket(priority) for priority in (0, 0, 0, 5)))
    await front.settle()
    gone.cancel()
    front.control.apply({})
    await front.settle()
    assert [type(task.result()) for task in waiting] == [Admitted, Admitted]
    assert (front.pods.in_flight, gate.granted, gate.queue.count, gate.queue.size) == (3, 0, 0, 0)
    await front.pass_(200)
    assert front.timers == 0


async def test_blocked_pool_stops_no_other_pool(front: Front) -> None:
    front.control.apply({POOL: policy_of(), "llm/empty": policy_of()})
    empty = asyncio.create_task(front.control.admit(ticket(pool="llm/empty")))
    await front.settle()
    assert isinstance(await front.request(ticket()), Admitted)
    empty.cancel()


async def test_other_policy_releases_who_may_run(front: Front) -> None:
    _, waiting = front.send(ticket(), ticket())
    await front.settle()
    front.configure(slots=2)
    await front.settle()
    assert isinstance(waiting.result(), Admitted)


async def test_2000_waiting_requests_take_little_memory(front: Front) -> None:
    gate = front.configure()
    await front.request(ticket())
    never = asyncio.Event()
    tracemalloc.start()
    try:
        tasks = [
            asyncio.create_task(front.control.admit(ticket(tenant=str(n % 100), size=200_000), never.wait))
            for n in range(2000)
        ]
        await front.settle()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gate.queue.count == 2000
    assert used < 20_000_000
    front.control.stop()
    await asyncio.gather(*tasks)
