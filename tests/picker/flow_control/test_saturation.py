"""How many more requests a pool can take, endpoint by endpoint."""

import math
from typing import cast

import pytest

from controller.picker.endpoints import Endpoint, Sent
from controller.picker.flow_control.loads import EndpointLoad, Load, load_of
from controller.picker.flow_control.saturation import ASSUMED_SLOTS, ConcurrencyDetector, UtilizationDetector
from controller.picker.flow_control.settings import ConcurrencyMode, ConcurrencyParameters, UtilizationParameters
from controller.picker.health import Failure
from controller.picker.model_servers import Reading
from controller.pools import Engine, PoolEndpoint

UTILIZATION = UtilizationDetector(UtilizationParameters())
FULL = Load(reading_age=0.5, running=4, waiting=9, slots=4)


def fresh(**load: float) -> Load:
    return Load(reading_age=0.5, **load)  # type: ignore[arg-type]  # counts are whole numbers


@pytest.mark.parametrize(
    ("load", "requests"),
    [
        # slots that are free, then a queue of five
        (fresh(slots=4), 9),
        (fresh(running=4, slots=4), 5),
        (fresh(running=4, waiting=3, slots=4), 2),
        (fresh(running=4, waiting=5, slots=4), 0),
        (fresh(running=4, waiting=50, slots=4), 0),
        # one that queues has no free slot: it is short of memory
        (fresh(running=2, waiting=4, slots=4), 1),
        # what was sent, and what ended, since the reading
        (fresh(running=4, slots=4, own_at_reading=4, in_flight=7), 2),
        (fresh(running=4, waiting=6, slots=4, own_at_reading=10, in_flight=7), 2),
        # slots that are not known yet
        (fresh(running=6), ASSUMED_SLOTS - 6 + 5),
        (fresh(running=6, waiting=2), 3),
        # KV cache
        (fresh(running=2, slots=4, kv_use=0.79), 7),
        (fresh(running=2, slots=4, kv_use=0.8), 0),
        (fresh(slots=4, kv_use=1.0), 1),
        # readings that are too old: own counts
        (Load(reading_age=60, running=4, waiting=50, kv_use=1.0, slots=4, in_flight=2), 7),
        (Load(slots=4, in_flight=9), 0),
        (Load(slots=4, in_flight=90), 0),
    ],
)
def test_room_of_an_endpoint_by_utilization(load: Load, requests: int) -> None:
    assert UTILIZATION.room([load]).requests == requests


def test_full_endpoint_neither_closes_the_pool_nor_hides_behind_a_mean() -> None:
    free = fresh(running=4, slots=4)
    assert UTILIZATION.room([FULL, free]).requests == UTILIZATION.room([free]).requests > 0
    assert UTILIZATION.room([FULL, FULL]).requests == 0
    assert not UTILIZATION.has_room(FULL)
    assert UTILIZATION.has_room(free)


def test_pool_is_not_closed_when_all_readings_are_old() -> None:
    old = Load(reading_age=60, waiting=50, kv_use=1.0, in_flight=3)
    room = UTILIZATION.room([old, old])
    assert room.requests > 0
    assert (room.unknown, room.saturation < 1) == (2, True)


def test_endpoints_that_fail_hold_no_room_while_others_do_not() -> None:
    failing = Load(slots=4, is_avoided=True)
    assert UTILIZATION.room([failing, FULL]).requests == 0
    assert UTILIZATION.room([failing, failing]).requests > 0


@pytest.mark.parametrize("detector", [UTILIZATION, ConcurrencyDetector(ConcurrencyParameters())])
def test_pool_without_endpoints_is_full(detector: UtilizationDetector | ConcurrencyDetector) -> None:
    room = detector.room([])
    assert (room.requests, room.saturation) == (0, 1)


@pytest.mark.parametrize(
    ("mode", "requests", "tokens"),
    [
        (ConcurrencyMode.REQUESTS, 3, math.inf),
        (ConcurrencyMode.TOKENS, math.inf, 50),
        (ConcurrencyMode.HYBRID, 2, 30),
    ],
)
def test_room_by_concurrency(mode: ConcurrencyMode, requests: float, tokens: float) -> None:
    detector = ConcurrencyDetector(
        ConcurrencyParameters(max_concurrency=4, max_token_concurrency=100, concurrency_mode=mode)
    )
    room = detector.room([Load(in_flight=2, tokens=70), Load(in_flight=6, tokens=80), Load(in_flight=3, tokens=150)])
    assert (room.requests, room.tokens) == (requests, tokens)


def test_headroom_lets_a_filter_go_beyond_the_threshold() -> None:
    detector = ConcurrencyDetector(ConcurrencyParameters(max_concurrency=4, headroom=0.5))
    assert detector.has_room(Load(in_flight=5))
    assert not detector.has_room(Load(in_flight=6))
    utilization = UtilizationDetector(UtilizationParameters(headroom=0.5))
    assert utilization.has_room(fresh(running=4, waiting=7, slots=4))
    assert not utilization.has_room(fresh(running=4, waiting=8, slots=4))


def test_endpoint_of_the_picker_is_a_load() -> None:
    endpoint = Endpoint(PoolEndpoint(address="a:8000", name="llm/a"))
    endpoint.open["1"] = cast(Sent, object())
    endpoint.tokens = 7
    unread: EndpointLoad = load_of(endpoint, now=20.0, staleness=3.0)
    assert (unread.in_flight, unread.reading_age, unread.is_avoided) == (1, math.inf, False)
    endpoint.read(Reading(Engine.VLLM, running=3, waiting=2, kv_use=0.4), own=1, now=20.0)
    endpoint.health.failed(Failure.CLOSED, request="1", now=20.0)
    load = load_of(endpoint, now=20.5, staleness=3.0)
    assert load == Load(
        in_flight=1,
        others=4,
        tokens=7,
        reading_age=0.5,
        running=3,
        waiting=2,
        own_at_reading=1,
        kv_use=0.4,
        slots=3,
        is_avoided=True,
    )


def test_requests_of_others_count_while_the_reading_is_fresh() -> None:
    endpoint = Endpoint(PoolEndpoint(address="a:8000", name="llm/a"))
    endpoint.read(Reading(Engine.VLLM, running=3, waiting=2), own=1, now=20.0)
    assert [load_of(endpoint, now=at, staleness=3.0).others for at in (20.0, 23.0, 23.5)] == [4, 4, 0]


def test_replicas_share_a_limit_of_requests() -> None:
    """Each knows its own, and reads what all of them have there."""
    detector = ConcurrencyDetector(ConcurrencyParameters(max_concurrency=10))
    replicas = [fresh(in_flight=own, others=7 - own) for own in (4, 2, 1)]
    assert [detector.room([load]).requests for load in replicas] == [3, 3, 3]
    full = [fresh(in_flight=own, others=10 - own) for own in (5, 3, 2)]
    assert [detector.room([load]).requests for load in full] == [0, 0, 0]
    assert not any(detector.has_room(load) for load in full)
