"""The backlog of uncached bytes, the first byte that takes a request out of it, and what answers teach."""

import pytest

from controller.completions import Completion, FirstByte, decode_completion, decode_first_byte
from controller.picker.inflight import SHORT_SCRAPES
from controller.picker.overdue import miss_overdue
from controller.picker.rates import Rates

from .conftest import Picker, completion_line

PROMPT = b"x" * 8000


def backlog(picker: Picker, name: str = "a") -> int:
    return picker.endpoint(name).backlog


def test_events_of_the_feeds() -> None:
    assert decode_first_byte(b'{"id":"1","waited":0.123}') == FirstByte("1", 0.123)
    assert isinstance(decode_completion(completion_line("1", endpoint="a")), Completion)
    for line in (b"", b"{}", b'{"waited":1}', b'{"id":"1","waited":"x"}'):
        for decode in (decode_first_byte, decode_completion):
            with pytest.raises(ValueError, match=r"."):
                decode(line)


def test_first_byte_takes_a_request_out_of_the_backlog_but_not_out_of_flight(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT, is_streamed=True)
    assert backlog(picker) == 8000
    picker.first_byte("1", 0.2)
    assert (backlog(picker), picker.count("a")) == (0, 1)
    picker.first_byte("1", 0.2)
    picker.complete("1", endpoint="a")
    assert (backlog(picker), picker.count("a"), picker.endpoint("a").tokens) == (0, 0, 0)


def test_first_byte_that_comes_after_the_completion_changes_nothing(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT, is_streamed=True)
    picker.pick("2", prompt=b"y" * 8000, is_streamed=True)
    picker.complete("1", endpoint="a")
    picker.first_byte("1", 0.2)
    assert backlog(picker) == 8000
    assert picker.completions.unreadable == 0


def test_completion_tells_of_a_first_byte_that_was_not_known_before(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT, is_streamed=True)
    picker.complete("1", endpoint="a", waited=0.9)
    assert picker.table.pools["llm/gpu"].memory.rates.seconds_per_token > 0.0002


def test_answer_that_is_not_streamed_leaves_the_backlog_by_the_clock(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT)
    picker.clock.pass_(0.42)
    picker.in_flight.settle(picker.clock())
    assert backlog(picker) == 8000
    picker.clock.pass_(0.02)
    picker.in_flight.settle(picker.clock())
    assert (backlog(picker), picker.count("a")) == (0, 1)
    picker.first_byte("1", 3.0)
    picker.complete("1", endpoint="a")
    assert (backlog(picker), picker.count("a")) == (0, 0)
    assert picker.table.pools["llm/gpu"].memory.rates.seconds_per_token == 0.0002


def test_retry_takes_the_backlog_along(picker: Picker) -> None:
    picker.serve("a", "b")
    first = picker.pick("1", prompt=PROMPT, is_streamed=True)
    second = picker.pick("1", prompt=PROMPT, is_streamed=True, tried=f"{first}:8000=closed;")
    assert (backlog(picker, first), backlog(picker, second)) == (0, 8000)
    picker.complete("1", endpoint=second, status=499, upstream_status="200 : 502 : 200 : -")
    assert backlog(picker, second) == 0


def test_lost_events_are_found_by_what_the_pod_reports(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT, is_streamed=True)
    for _ in range(SHORT_SCRAPES):
        picker.clock.pass_(1)
        picker.in_flight.compare(picker.endpoint("a"), reported=0, scraped_at=picker.clock())
    assert (backlog(picker), picker.count("a")) == (0, 0)


def answer(picker: Picker, request: str, waited: float, *, status: int = 200, prompt: bytes = PROMPT) -> None:
    """One streamed request from pick to end."""
    name = picker.pick(request, prompt=prompt, is_streamed=True)
    picker.first_byte(request, waited)
    picker.clock.pass_(waited + 1)
    picker.complete(request, endpoint=name, status=status, upstream_status=f"200 : {status}")


def test_rates_are_learned_from_answers(picker: Picker) -> None:
    picker.serve("a")
    rates = picker.table.pools["llm/gpu"].memory.rates
    for n in range(400):
        answer(picker, str(n), 0.03 + 2000 * 0.0005, prompt=b"%04d" % n * 2000)
    assert rates.expected(8000, picker.endpoint("a").slowness) == pytest.approx(1.03, rel=0.05)
    assert rates.residence == pytest.approx(2.03, rel=0.05)


def test_speed_of_an_endpoint_is_learned() -> None:
    rates = Rates()
    rates.pods = 2
    fast = slow = 1.0
    for _ in range(500):
        fast = rates.answered(0.43, ahead=8000, slowness=fast, loaded=False)
        slow = rates.answered(0.83, ahead=8000, slowness=slow, loaded=False)
    assert slow / fast == pytest.approx(2, rel=0.1)
    assert rates.expected(8000, slow) == pytest.approx(0.83, rel=0.05)


def test_slow_endpoint_is_learned_from_its_answers_and_gets_less(picker: Picker) -> None:
    picker.serve("a", "b")
    for n in range(300):
        # Two at a time, so that the slow one is asked too.
        pair = [f"{n}a", f"{n}b"]
        names = [picker.pick(one, prompt=f"{one:>8}".encode() * 1000, is_streamed=True) for one in pair]
        for one, name in zip(pair, names, strict=True):
            picker.first_byte(one, 0.83 if name == "a" else 0.43)
            picker.complete(one, endpoint=name)
    assert picker.endpoint("a").pace > 1.5 * picker.endpoint("b").pace
    picks = [picker.pick(f"in flight {n}", prompt=b"%08d" % n * 999, is_streamed=True) for n in range(40)]
    assert picks.count("b") > 1.3 * picks.count("a")


@pytest.mark.parametrize("status", [400, 401, 429])
def test_refusals_of_a_model_server_teach_nothing(picker: Picker, status: int) -> None:
    picker.serve("a")
    for n in range(50):
        answer(picker, str(n), 0.001, status=status, prompt=b"%04d" % n * 2000)
    assert vars_of(picker.table.pools["llm/gpu"].memory.rates) == vars_of(Rates()) | {
        "matched_share": pytest.approx(0.36, abs=0.02)
    }


def test_answers_that_are_broken_off_teach_nothing_of_times(picker: Picker) -> None:
    picker.serve("a")
    for n in range(50):
        name = picker.pick(str(n), is_streamed=True)
        picker.first_byte(str(n), 0.001)
        picker.complete(str(n), endpoint=name, is_whole=False, prompt_tokens=10, cached_tokens=5, completion_tokens=1)
    memory = picker.table.pools["llm/gpu"].memory
    assert vars_of(memory.rates) == vars_of(Rates())
    assert (picker.endpoint("a").byte_time, picker.endpoint("a").first_byte_time) == (None, None)
    # The tokens are those of the whole: they come last.
    assert sum(usage.answers for usage in memory.usage.sums.values()) == 50


def vars_of(rates: Rates) -> dict[str, float]:
    return {name: getattr(rates, name) for name in Rates.__slots__}


@pytest.mark.parametrize("waited", [0.0, 1e6])
def test_odd_answers_leave_rates_in_their_bounds(waited: float) -> None:
    rates = Rates()
    slowness = 1.0
    for ahead in (8000, 100) * 2000:
        slowness = rates.answered(waited, ahead=ahead, slowness=slowness, loaded=False)
        rates.ended(waited)
    assert 0.25 <= slowness <= 4
    assert 1e-6 <= rates.seconds_per_token <= 0.1
    assert rates.first_byte > 0
    assert rates.residence > 0


def test_time_to_load_an_adapter_is_learned(picker: Picker) -> None:
    picker.serve("a")
    picker.read("a", waiting_adapters=tuple(f"l{n}" for n in range(100)), max_adapters=1)
    picker.table.digest_readings()
    for n in range(100):
        picker.pick(str(n), model=f"l{n}", is_streamed=True)
        picker.first_byte(str(n), 0.03 + 1.0)
        picker.complete(str(n), endpoint="a")
    assert picker.table.pools["llm/gpu"].memory.rates.adapter_load == pytest.approx(1.0, rel=0.05)
    assert (picker.endpoint("a").adapters, picker.endpoint("a").adapters_in_use) == ({"l99": None}, {})


def test_cached_tokens_that_answers_report_are_compared(picker: Picker) -> None:
    picker.serve("a")
    for n in range(3):
        picker.pick(str(n), prompt=PROMPT, is_streamed=True)
        picker.complete(str(n), endpoint="a", prompt_tokens=2000, cached_tokens=1900 if n else 0)
    memory = picker.table.pools["llm/gpu"].memory
    assert (memory.reported.prompt, memory.reported.cached) == (6000, 3800)
    assert memory.predicted_of_reported == 2 * round(2000 * 7936 / 8000)


def test_overdue_first_byte_takes_an_endpoint_out_of_preference(picker: Picker) -> None:
    picker.serve("a", "b")
    hung = picker.pick("1", prompt=PROMPT, is_streamed=True)
    picker.clock.pass_(29)
    look(picker)
    assert picker.endpoint(hung).health.pause == 0
    picker.clock.pass_(2)
    look(picker)
    look(picker)
    assert picker.endpoint(hung).health.failures.total() == 1
    assert hung not in {picker.pick(str(n)) for n in range(10, 20)}
    picker.first_byte("1", 32.0)
    assert picker.endpoint(hung).health.pause == 0


def test_long_prompt_in_a_queue_is_not_overdue(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=b"x" * 400_000, is_streamed=True)
    picker.clock.pass_(60)
    look(picker)
    assert picker.endpoint("a").health.pause == 0


def test_answer_that_is_not_streamed_has_no_first_byte_to_miss(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=PROMPT)
    picker.clock.pass_(3600)
    look(picker)
    assert picker.endpoint("a").health.pause == 0


@pytest.mark.parametrize("is_streamed", [True, False])
def test_server_that_has_requests_and_counts_no_token_hangs(picker: Picker, is_streamed: bool) -> None:
    picker.serve("a")
    picker.pick("1", is_streamed=is_streamed)
    if is_streamed:
        picker.first_byte("1", 0.1)
    for _ in range(31):
        assert picker.endpoint("a").health.pause == 0
        picker.read("a", running=1, generated_tokens=7.0)
        picker.clock.pass_(1)
        look(picker)
    assert picker.endpoint("a").health.pause > 0
    picker.complete("1", endpoint="a")
    assert picker.endpoint("a").health.pause == 0


@pytest.mark.parametrize(
    ("running", "step", "scrapes"),
    [(1, 1.0, True), (0, 0.0, True), (1, None, True), (1, 0.0, False)],
    ids=["slow", "client-does-not-read", "does-not-say", "not-scraped"],
)
def test_slow_generation_is_no_fault(picker: Picker, running: int, step: float | None, scrapes: bool) -> None:
    picker.serve("a")
    picker.pick("1")
    picker.read("a", running=running, generated_tokens=step)
    for n in range(3600):
        if scrapes:
            picker.read("a", running=running, generated_tokens=None if step is None else n * step)
        else:
            picker.endpoint("a").miss()
        picker.clock.pass_(1)
        look(picker)
    assert picker.endpoint("a").health.pause == 0


def look(picker: Picker) -> None:
    for endpoint in picker.table.endpoints:
        miss_overdue(endpoint, now=picker.clock())
