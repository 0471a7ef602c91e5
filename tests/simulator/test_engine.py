import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.simulator.engine import Engine, Sequence, State
from controller.simulator.settings import PodSettings
from controller.simulator.tokens import TOKEN_BYTES, block_hashes


def _engine(**settings: object) -> Engine[Sequence]:
    given_settings = {"name": "a", "model": "base", "noise": 0, "max_context": 100, **settings}
    return Engine(PodSettings.model_validate(given_settings))


def _sequence(
    tokens: int, answer: int = 1, *, text: bytes = b"abcd", adapter: str | None = None, size: int = 16
) -> Sequence:
    prompt, reply = text * tokens, b"wxyz" * answer
    assert len(prompt) == tokens * TOKEN_BYTES
    return Sequence(prompt, reply, block_hashes(prompt + reply, root=adapter or "", block_size=size), adapter=adapter)


def _run(engine: Engine[Sequence]) -> list[tuple[float, Sequence]]:
    """Every token until there is nothing to do, with its time."""
    tokens = []
    while (now := engine.next_at) is not None:
        tokens += [(now, sequence) for sequence in engine.step(now)]
    return tokens


def test_a_step_takes_its_base_its_prompt_tokens_and_its_decoding_sequences() -> None:
    engine = _engine()
    engine.submit(_sequence(100, answer=3), now=5.0)
    times = [time for time, _ in _run(engine)]
    first = 5.0 + 0.012 + 100 * 0.00025
    assert times == pytest.approx([first, first + 0.0124, first + 2 * 0.0124])


def test_speed_divides_times_and_slowdown_multiplies_them() -> None:
    engine = _engine(speed=10)
    engine.slowdown = 5.0
    engine.submit(_sequence(100), now=0.0)
    assert [time for time, _ in _run(engine)] == pytest.approx([0.037 / 2])


def test_a_prompt_over_the_budget_takes_several_steps() -> None:
    engine = _engine(step_tokens=40)
    engine.submit(_sequence(90), now=0.0)
    assert [time for time, _ in _run(engine)] == pytest.approx([3 * 0.012 + 90 * 0.00025])


def test_a_running_sequence_decodes_while_another_reads_its_prompt() -> None:
    engine = _engine(step_tokens=40)
    short, long = _sequence(10, answer=4), _sequence(90, text=b"long")
    engine.submit(short, now=0.0)
    engine.submit(long, now=0.0)
    assert [sequence is short for _, sequence in _run(engine)] == [True, True, True, False, True]


def test_a_sequence_that_arrives_while_a_step_is_late_waits_for_no_negative_time() -> None:
    engine = _engine()
    engine.submit(_sequence(10), now=1.0)
    engine.submit(_sequence(10, text=b"late"), now=1.5)
    _run(engine)
    (total,) = engine.totals.queued.lines("x", "")[-1:]
    assert total == "x_sum{} 0.0"


def test_sequences_beyond_the_slots_wait_in_order() -> None:
    engine = _engine(max_sequences=2)
    first, second, third = (_sequence(10, answer=answer) for answer in (5, 2, 1))
    for sequence in (first, second, third):
        engine.submit(sequence, now=0.0)
    engine.step(0.0)
    assert engine.running == (first, second)
    assert engine.waiting == (third,)
    tokens = [sequence for _, sequence in _run(engine)]
    assert tokens == [first, second, first, second, first, third, first, first]


def test_a_repeated_prompt_is_cached_but_for_its_last_token() -> None:
    engine = _engine()
    for tokens, expected in ((64, 0), (64, 48), (65, 64), (100, 64)):
        sequence = _sequence(tokens)
        engine.submit(sequence, now=0.0)
        _run(engine)
        assert sequence.cached == expected
    assert (engine.totals.cache_queries, engine.totals.cache_hits) == (293, 176)


def test_the_answer_is_cached_for_the_next_turn() -> None:
    engine = _engine()
    first = _sequence(20, answer=30)
    engine.submit(first, now=0.0)
    _run(engine)
    prompt = first.prompt + first.answer + b"next"
    turn = Sequence(prompt, b"word", block_hashes(prompt, root="", block_size=16))
    engine.submit(turn, now=1.0)
    _run(engine)
    assert turn.cached == 48


@pytest.mark.parametrize("spare", [1, 2, 3])
def test_a_prompt_whose_last_token_is_short_is_cached_for_the_next_turn(spare: int) -> None:
    engine = _engine()
    prompt, reply = b"p" * (20 * TOKEN_BYTES - spare), b"wxyz" * 30
    engine.submit(Sequence(prompt, reply, block_hashes(prompt + reply, root="", block_size=16)), now=0.0)
    _run(engine)
    longer = prompt + reply + b"and so on"
    turn = Sequence(longer, b"word", block_hashes(longer, root="", block_size=16))
    engine.submit(turn, now=1.0)
    _run(engine)
    assert turn.cached == 48


def test_adapters_do_not_share_blocks() -> None:
    engine = _engine()
    sequences = [_sequence(64, adapter=adapter) for adapter in ("one", "two", None)]
    for sequence in sequences:
        engine.submit(sequence, now=0.0)
        _run(engine)
    assert [sequence.cached for sequence in sequences] == [0, 0, 0]


def test_the_block_longest_unused_is_reused_first_and_a_prefix_from_its_end() -> None:
    engine = _engine(blocks=7)
    for text in (b"old.", b"new."):
        engine.submit(_sequence(48, text=text), now=0.0)
        _run(engine)
    engine.submit(_sequence(32, text=b"more"), now=0.0)
    _run(engine)
    again = [_sequence(48, text=b"old."), _sequence(48, text=b"new.")]
    matched = [engine._blocks.match(sequence.hashes, limit=3) for sequence in again]
    assert matched == [2, 3]


def test_the_youngest_is_preempted_when_blocks_run_out_and_finishes_later() -> None:
    engine = _engine(blocks=7)
    old, young = _sequence(40, answer=40), _sequence(40, answer=40, text=b"else")
    engine.submit(old, now=0.0)
    engine.submit(young, now=0.0)
    tokens = [sequence for _, sequence in _run(engine)]
    assert engine.totals.preemptions == 1
    assert tokens.index(young) < tokens.index(old) + 2
    assert (tokens.count(old), tokens.count(young)) == (40, 40)
    assert tokens[-1] is young
    assert engine.kv_usage == 0


def test_a_sequence_without_blocks_waits() -> None:
    engine = _engine(blocks=7)
    large, next_one = _sequence(90), _sequence(48, text=b"next")
    engine.submit(large, now=0.0)
    engine.submit(next_one, now=0.0)
    engine.step(0.0)
    assert engine.waiting == (next_one,)
    assert engine.kv_usage == pytest.approx(6 / 7)


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING])
def test_an_aborted_sequence_frees_its_blocks_at_once(state: State) -> None:
    engine = _engine(max_sequences=1)
    running, waiting = _sequence(60, adapter="one"), _sequence(60)
    engine.submit(running, now=0.0)
    engine.submit(waiting, now=0.0)
    engine.step(0.0)
    aborted = running if state is State.RUNNING else waiting
    engine.abort(aborted)
    assert aborted.state is State.ABORTED
    assert (engine.kv_usage == 0) is (aborted is running)
    assert aborted not in [sequence for _, sequence in _run(engine)]
    assert engine.totals.ended["abort"] == 1


def test_an_abort_after_the_end_changes_nothing() -> None:
    engine = _engine()
    sequence = _sequence(10)
    engine.submit(sequence, now=0.0)
    _run(engine)
    engine.abort(sequence)
    assert sequence.state is State.FINISHED
    assert engine.totals.ended == {"stop": 0, "length": 1, "abort": 0}


def test_loading_an_adapter_lengthens_the_step_once() -> None:
    engine = _engine(adapter_time=0.3)
    for now in (0.0, 1.0):
        engine.submit(_sequence(10, adapter="one", text=b"%4d" % now), now=now)
    first, second = (time for time, _ in _run(engine))
    assert first == pytest.approx(0.3 + 0.012 + 2 * 10 * 0.00025)
    assert second == first


def test_an_adapter_waits_for_a_slot_and_others_pass_it() -> None:
    engine = _engine(max_adapters=1)
    sequences = [_sequence(10, answer=3, adapter=adapter) for adapter in ("one", "two", "one", None)]
    for sequence in sequences:
        engine.submit(sequence, now=0.0)
    engine.step(0.0)
    assert engine.waiting == (sequences[1],)
    assert engine.running == (sequences[0], sequences[2], sequences[3])
    assert _run(engine)[-1][1] is sequences[1]
    assert engine.loaded_adapters == ("two",)


def test_the_adapter_longest_unused_is_displaced() -> None:
    engine = _engine(max_adapters=2)
    for adapter in ("one", "two", "one", "three"):
        engine.submit(_sequence(10, adapter=adapter), now=0.0)
        _run(engine)
    assert engine.loaded_adapters == ("one", "three")


def test_noise_depends_on_seed_and_name_only() -> None:
    def times(**settings: object) -> list[float]:
        engine = _engine(noise=0.1, **settings)
        engine.submit(_sequence(10, answer=5), now=0.0)
        return [time for time, _ in _run(engine)]

    assert times(seed=1) == times(seed=1)
    assert times(seed=1) != times(seed=2)
    assert times(name="b") != times(name="c")


def test_a_prompt_without_answer_finishes_when_it_is_read() -> None:
    engine = _engine()
    sequence = _sequence(10, answer=0)
    engine.submit(sequence, now=0.0)
    assert len(_run(engine)) == 1
    assert (sequence.state, sequence.generated) == (State.FINISHED, 0)


@given(
    requests=st.lists(
        st.tuples(
            st.integers(1, 60),
            st.integers(0, 40),
            st.sampled_from([b"same", b"else"]),
            st.sampled_from([None, "x", "y"]),
        ),
        max_size=12,
    ),
    aborted=st.sets(st.integers(0, 11)),
)
def test_every_block_comes_back(requests: list[tuple[int, int, bytes, str | None]], aborted: set[int]) -> None:
    engine = _engine(blocks=9, block_size=12, max_adapters=1, step_tokens=30)
    sequences = [
        _sequence(tokens, answer, text=text, adapter=adapter, size=12) for tokens, answer, text, adapter in requests
    ]
    for index, sequence in enumerate(sequences):
        engine.submit(sequence, now=float(index))
        if engine.next_at is not None:
            engine.step(engine.next_at)
        if index in aborted:
            engine.abort(sequences[index // 2])
    _run(engine)
    assert engine.kv_usage == 0
    assert engine._blocks.available == 9
    assert all(sequence.state in (State.FINISHED, State.ABORTED) for sequence in sequences)
