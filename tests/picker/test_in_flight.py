"""In flight is exact from the pick to the last byte, and 0 at rest."""

from typing import Any

import pytest

from controller.picker.inflight import REMEMBERED, SHORT_SCRAPES
from controller.picker.overdue import miss_overdue
from controller.picker.scheduling.profile import PluginSpec

from .conftest import Picker


def compare(picker: Picker, name: str, *, reported: int, scrapes: int = 1) -> int:
    """Compare with several scrapes, a second apart; how many entries expired."""
    expired = 0
    for _ in range(scrapes):
        picker.clock.pass_(1)
        expired += picker.in_flight.compare(picker.endpoint(name), reported=reported, scraped_at=picker.clock())
    return expired


def test_load_counts_from_the_pick_to_the_completion(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    assert picker.count("a") == 1
    picker.complete("1", endpoint="a")
    assert picker.count("a") == len(picker.in_flight) == 0


@pytest.mark.parametrize("asked", [{}, {"prompt": b"x" * 1000}, {"is_streamed": True}, {"model": "tuned"}])
@pytest.mark.parametrize(
    "profile", [(), (("random-picker", 1.0),), (("prefix-cache-scorer", 1.0),), (("session-affinity-scorer", 1.0),)]
)
def test_load_counts_whatever_is_asked_and_whoever_chooses(
    profile: tuple[tuple[str, float], ...], asked: dict[str, Any]
) -> None:
    picker = Picker(plugins=tuple(PluginSpec(name) for name, _ in profile), profile=profile)
    picker.serve("a", "b")
    name = picker.pick("1", **asked)
    assert picker.count(name) == 1
    picker.first_byte("1", 0.1)
    assert picker.count(name) == 1
    picker.complete("1", endpoint=name)
    assert picker.count(name) == 0


def test_client_that_hangs_up_is_released(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.complete("1", endpoint="a", status=499, upstream_status="200 : -")
    assert picker.count("a") == 0
    assert picker.endpoint("a").health.pause == 0


def test_completion_before_its_pick_leaves_nothing(picker: Picker) -> None:
    picker.serve("a")
    picker.complete("1", endpoint="", status=499, upstream_status="-")
    picker.pick("1")
    assert picker.count("a") == 0
    assert picker.completions.unknown == 0


def test_unknown_completion_is_counted_and_takes_nothing_away(picker: Picker) -> None:
    picker.serve("a")
    picker.complete("other", endpoint="a")
    assert (picker.completions.unknown, picker.count("a")) == (1, 0)
    picker.pick("1")
    assert picker.count("a") == 1


def test_second_completion_of_a_request_takes_nothing_away(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.pick("2")
    picker.complete("1", endpoint="a")
    picker.complete("1", endpoint="a")
    assert picker.count("a") == 1


@pytest.mark.parametrize("line", [b"nothing", b'{"id":1}', b"{"])
def test_unreadable_line_is_counted(picker: Picker, line: bytes) -> None:
    picker.completions.take(line, now=0)
    assert picker.completions.unreadable == 1


def test_refused_retry_leaves_nothing_and_its_completion_is_no_second_failure(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    assert picker.pick("1", tried="a:8000=timeout;") == "endpoint_timed_out"
    assert picker.count("a") == 0
    picker.complete("1", endpoint="a", status=504, upstream_status="200 : 504 : 504")
    assert picker.count("a") == picker.completions.unknown == 0
    assert picker.endpoint("a").health.failures.total() == 1


def test_requests_of_a_worker_that_is_no_more_are_over(picker: Picker) -> None:
    picker.serve("a")
    for request, worker in (("1", 1), ("2", 2), ("3", 1), ("4", 0)):
        picker.pick(request, worker=worker, prompt=b"x" * 1000)
    assert picker.in_flight.lose(1) == 2
    assert list(picker.endpoint("a").open) == ["2", "4"]
    assert (picker.in_flight.expired, picker.endpoint("a").health.failures.total()) == (2, 0)


def test_end_that_a_worker_told_before_its_own_is_taken_all_the_same(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", worker=1)
    picker.in_flight.lose(1)
    picker.complete("1", endpoint="a", status=500, upstream_status="200 : 500")
    assert picker.completions.unknown == 0
    assert picker.endpoint("a").health.failures.total() == 1


def test_readiness_flap_keeps_the_count(picker: Picker) -> None:
    picker.serve("a", "b")
    first = picker.pick("1")
    picker.serve("b" if first == "a" else "a")
    picker.serve("a", "b")
    assert picker.count(first) == 1
    picker.complete("1", endpoint=first)
    assert picker.count(first) == 0


def test_pod_that_left_is_known_until_its_last_request_ends(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.serve()
    assert [endpoint.retired for endpoint in picker.table.endpoints] == [True]
    picker.complete("1", endpoint="a")
    picker.table.sweep()
    assert picker.table.endpoints == ()


def test_pod_that_left_and_answers_no_more_is_forgotten(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.serve()
    for _ in range(30):
        picker.endpoint("a").miss()
    picker.table.sweep()
    assert picker.table.endpoints == ()
    picker.complete("1", endpoint="a")
    assert len(picker.in_flight) == picker.completions.unknown == 0


def test_another_pod_of_the_same_name_starts_anew(picker: Picker) -> None:
    picker.serve("a", uid="1")
    picker.pick("1")
    picker.pick("1", tried="a:8000=unreachable;")
    picker.pick("2")
    picker.serve("a", uid="2")
    assert picker.count("a") == picker.endpoint("a").health.pause == 0
    picker.complete("2", endpoint="a")
    assert (picker.count("a"), picker.completions.unknown) == (0, 0)


def test_another_pod_of_the_same_address_did_not_fail(picker: Picker) -> None:
    picker.serve("a", uid="1")
    picker.pick("1")
    picker.serve("a", "b", uid="2")
    assert picker.pick("1", tried="a:8000=closed;") == "b"
    health = picker.endpoint("a").health
    assert (health.pause, health.failures.total()) == (0, 0)
    picker.complete("1", endpoint="b", upstream_status="200 : 502 : 200 : 200")
    assert (picker.count("a"), picker.count("b"), len(picker.in_flight)) == (0, 0, 0)


def test_request_whose_end_was_lost_is_found_by_what_the_pod_reports(picker: Picker) -> None:
    picker.serve("a")
    for n in range(3):
        picker.pick(str(n))
    assert compare(picker, "a", reported=1, scrapes=SHORT_SCRAPES - 1) == 0
    assert compare(picker, "a", reported=1) == 2
    assert list(picker.endpoint("a").open) == ["2"]


def test_stream_silent_for_15_minutes_still_counts(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    for _ in range(15):
        assert compare(picker, "a", reported=1, scrapes=60) == 0
        # Whatever else goes on in the picker.
        picker.in_flight.settle(picker.clock())
        picker.table.sweep()
        picker.table.digest_readings()
        miss_overdue(picker.endpoint("a"), now=picker.clock())
        picker.pick("2")
        picker.complete("2", endpoint="a")
    assert list(picker.endpoint("a").open) == ["1"]


def test_without_a_reading_nothing_expires(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.clock.pass_(3600)
    picker.table.sweep()
    assert picker.count("a") == 1


def test_requests_younger_than_the_scrapes_are_not_doubted(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("old")
    compare(picker, "a", reported=0)
    picker.pick("young")
    assert compare(picker, "a", reported=0, scrapes=SHORT_SCRAPES - 1) == 1
    assert list(picker.endpoint("a").open) == ["young"]


def test_requests_that_come_and_go_between_scrapes_are_not_doubted(picker: Picker) -> None:
    picker.serve("a")
    for n in range(5 * SHORT_SCRAPES):
        picker.pick(str(n))
        assert compare(picker, "a", reported=0) == 0
        picker.complete(str(n), endpoint="a")


def test_one_scrape_that_reports_enough_ends_the_doubt(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    for _ in range(10):
        assert compare(picker, "a", reported=0, scrapes=SHORT_SCRAPES - 1) == 0
        assert compare(picker, "a", reported=1) == 0


def test_completion_of_an_expired_request_is_not_unknown(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    assert compare(picker, "a", reported=0, scrapes=SHORT_SCRAPES) == 1
    picker.complete("1", endpoint="a")
    assert (picker.completions.unknown, picker.count("a")) == (0, 0)


def test_expired_request_that_is_retried_counts_again(picker: Picker) -> None:
    picker.serve("a", "b")
    first = picker.pick("1")
    compare(picker, first, reported=0, scrapes=SHORT_SCRAPES)
    second = picker.pick("1", tried=f"{first}:8000=closed;")
    assert picker.count(second) == 1


def test_pod_that_takes_requests_and_never_counts_them_attracts_no_more(picker: Picker) -> None:
    picker.serve("a", "b")
    hung = picker.pick("1")
    other = "b" if hung == "a" else "a"
    picker.clock.pass_(1)
    assert compare(picker, hung, reported=0, scrapes=SHORT_SCRAPES) == 1
    assert {picker.pick(str(n)) for n in range(10, 20)} == {other}
    # It answers after all.
    picker.complete("1", endpoint=hung)
    assert picker.endpoint(hung).health.pause == 0


def test_lost_end_is_no_fault_of_a_pod_that_answers_others(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("lost")
    picker.clock.pass_(1)
    picker.pick("2")
    picker.complete("2", endpoint="a")
    assert compare(picker, "a", reported=0, scrapes=SHORT_SCRAPES) == 1
    assert picker.endpoint("a").health.pause == 0


def test_scrapes_that_come_often_expire_nothing_sooner(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1")
    for _ in range(30):
        picker.clock.pass_(0.1)
        assert picker.in_flight.compare(picker.endpoint("a"), reported=0, scraped_at=picker.clock()) == 0


def test_ids_that_are_remembered_for_a_message_to_come_are_bounded(picker: Picker) -> None:
    picker.serve("a")
    for n in range(2 * REMEMBERED):
        # Hung up before its pick; let go before its end.
        picker.complete(f"early{n}", endpoint="")
        picker.pick(f"late{n}", tried="a:8000=unreachable;")
    assert len(picker.in_flight) == 0
    assert picker.in_flight.was_released(f"late{2 * REMEMBERED - 1}")
    assert not picker.in_flight.was_released("late0")
    assert picker.pick("early0") == "a"
    assert picker.count("a") == 1
    picker.pick(f"early{2 * REMEMBERED - 1}")
    assert picker.count("a") == 1
