"""The index: what it matches, what it forgets, and how large it gets."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.picker.answers import Refusal
from controller.picker.chunks import chunk_hashes
from controller.picker.index_budget import share_out
from controller.picker.learned_metrics import learned_metrics
from controller.picker.model_servers import Reading
from controller.picker.prefix import DEFAULT_CAPACITY, PrefixIndex, capacity_of, longest_matches
from controller.picker.requests import BodyPieces, PickRequest, pick_request
from controller.pools import Engine

from .conftest import Picker

prompts = st.lists(st.text(alphabet="ab", min_size=0, max_size=12), max_size=60)


def chain(text: str) -> Sequence[int]:
    """Hashes of a prompt of which each letter is a chunk."""
    return chunk_hashes("".join(letter * 256 for letter in text).encode(), root=0)


def brute_force(index: PrefixIndex, hashes: Sequence[int]) -> int:
    held = index._young | index._old
    return next((n for n, one in enumerate(hashes) if one not in held), len(hashes))


@given(prompts, st.integers(1, 40))
def test_match_is_brute_force_and_size_is_bounded(texts: list[str], capacity: int) -> None:
    index = PrefixIndex(capacity)
    for text in texts:
        hashes = chain(text)
        assert index.match(hashes) == brute_force(index, hashes)
        index.remember(hashes)
        assert len(index) <= 2 * capacity
        assert index.match(hashes) == min(len(hashes), capacity)


@given(st.lists(st.tuples(prompts, st.integers(1, 30)), max_size=8), st.text(alphabet="ab", max_size=12))
def test_matches_of_many_indexes_are_those_of_each(held: list[tuple[list[str], int]], text: str) -> None:
    indexes = []
    for texts, capacity in held:
        index = PrefixIndex(capacity)
        for one in texts:
            index.remember(chain(one))
        indexes.append(index)
    assert longest_matches(indexes, chain(text)) == [brute_force(index, chain(text)) for index in indexes]


@given(st.lists(st.one_of(st.text(alphabet="ab", max_size=12), st.integers(1, 30)), max_size=60))
def test_resized_index_is_bounded_and_whole(steps: list[str | int]) -> None:
    index = PrefixIndex(20)
    for step in steps:
        if isinstance(step, int):
            index.resize(step)
        else:
            index.remember(chain(step))
            assert index.match(chain(step)) == brute_force(index, chain(step))
        assert len(index) <= 2 * index.capacity


def test_what_is_used_again_is_kept() -> None:
    index = PrefixIndex(50)
    for n in range(100):
        index.remember(chain("aaaaaaaaaa"))
        index.remember(chain(f"{n:07b}".replace("0", "a").replace("1", "b")))
    assert index.match(chain("aaaaaaaaaa")) == 10


def test_what_is_held_takes_no_room_a_second_time() -> None:
    index = PrefixIndex(10)
    index.remember(chain("aaaaaa"))
    for _ in range(5):
        index.remember(chain("aaaaaa"))
        index.remember(chain("aaab"))

    assert len(index) == 7
    assert index.match(chain("aaaaaa")) == 6
    assert index.match(chain("aaab")) == 4


def test_at_least_the_capacity_is_held() -> None:
    index = PrefixIndex(100)
    for n in range(300):
        index.remember([n])
    assert longest_matches([index], [200]) == [1]
    assert 100 <= len(index) <= 200


@pytest.mark.parametrize(
    ("blocks", "size", "chunks"), [(None, None, None), (27_000, 16, 6750), (900, 1, 64), (0, 0, 64), (None, 16, None)]
)
def test_capacity_is_that_of_the_kv_cache(blocks: int | None, size: int | None, chunks: int | None) -> None:
    assert capacity_of(Reading(Engine.VLLM, blocks=blocks, block_size=size)) == chunks


def test_index_follows_the_size_that_the_endpoint_reports(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a", blocks=1000, block_size=16)
    picker.table.digest_readings()
    assert picker.endpoint("a").prefixes.capacity == 250
    assert picker.endpoint("b").prefixes.capacity == DEFAULT_CAPACITY


def test_index_shrinks_while_answers_report_far_less_than_predicted() -> None:
    index = PrefixIndex(1000)
    index.remember(range(500))
    changes = [index.compare(predicted=0.9, reported=0.0) for _ in range(20)]
    assert changes == [False] * 19 + [True]
    assert (index.trust, len(index)) == (0.5, 0)
    for _ in range(2000):
        index.compare(predicted=0.9, reported=0.0)
    share_out([index])
    assert index.capacity >= 1


def test_index_grows_back_when_answers_bear_it_out() -> None:
    index = PrefixIndex(1000)
    index.trust = 0.25
    for _ in range(100):
        index.compare(predicted=0.9, reported=0.9)
    assert index.trust == 1.0


@pytest.mark.parametrize(("predicted", "reported"), [(0.05, 0.0), (0.9, 0.8), (0.9, 1.0), (0.0, 0.9)])
def test_small_differences_change_nothing(predicted: float, reported: float) -> None:
    index = PrefixIndex(1000)
    assert not any(index.compare(predicted=predicted, reported=reported) for _ in range(200))
    assert index.trust == 1.0


def test_index_of_a_removed_endpoint_goes_with_it(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=b"x" * 5000)
    picker.complete("1", endpoint="a")
    picker.serve("b")
    assert [endpoint.name for endpoint in picker.table.endpoints] == ["llm/b"]
    picker.serve("a", "b")
    assert len(picker.endpoint("a").prefixes) == 0


def _turn(picker: Picker, number: int, *messages: tuple[str, str]) -> PickRequest:
    """A turn of a conversation, picked for."""
    pieces = BodyPieces()
    said = [{"role": role, "content": text} for role, text in messages]
    pieces.add(json.dumps({"model": "m", "messages": said}).encode())
    headers = {
        b"x-infergate-pool": b"llm/gpu",
        b"x-infergate-request": b"turn-%d" % number,
        b"x-infergate-then": b"@serve",
    }
    request = pick_request("POST", "/v1/chat/completions", headers, pieces)
    assert not isinstance(picker.director.pick(request), Refusal)
    return request


def test_next_turn_finds_the_answer_where_it_was_made() -> None:
    picker = Picker()
    picker.serve("a", "b", "c")
    first = [("user", "Hello")]
    second = [*first, ("assistant", "a" * 2000), ("user", "And then?")]
    assert _turn(picker, 1, *first).cached_bytes == 0
    (where,) = (name for name in "abc" if picker.count(name))
    assert _turn(picker, 2, *second).cached_bytes == 1792  # whole chunks up to the answer's end
    assert picker.count(where) == 2


def test_answer_to_another_prompt_is_not_counted() -> None:
    picker = Picker()
    picker.serve("a")
    said = [("assistant", "a" * 2000), ("user", "And then?")]
    _turn(picker, 1, ("user", "Hello"))
    assert _turn(picker, 2, ("user", "Hello!"), *said).cached_bytes == 0
    picker.endpoint("a").prefixes.clear()
    assert _turn(picker, 3, ("user", "Hello"), *said).cached_bytes == 0


def _answers(picker: Picker, count: int, *, cached: int) -> None:
    """Answers to one prompt of 5,000 tokens, which say how many of them were cached."""
    for n in range(count):
        picker.pick(str(n), prompt=b"x" * 20_000)
        picker.complete(str(n), endpoint="a", prompt_tokens=5000, cached_tokens=cached)
    picker.table.digest_readings()


def test_index_follows_the_truth_that_answers_tell(picker: Picker) -> None:
    picker.serve("a")
    picker.read("a", blocks=1000, block_size=16)
    _answers(picker, 30, cached=4900)
    assert picker.endpoint("a").prefixes.capacity == 250
    _answers(picker, 100, cached=0)
    shrunk = picker.endpoint("a").prefixes.capacity
    assert shrunk < 125
    assert len(picker.endpoint("a").prefixes) <= 2 * shrunk
    _answers(picker, 300, cached=4900)
    assert picker.endpoint("a").prefixes.capacity == 250


def test_endpoint_that_caches_nothing_is_picked_for_by_load_and_that_is_told(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a", blocks=1000, block_size=16)
    picker.read("b", blocks=125, block_size=128)
    assert _trust_of(picker) == {"llm/a": 1.0, "llm/b": 1.0}
    for n in range(400):
        name = picker.pick(str(n), prompt=b"x" * 20_000, is_streamed=True)
        picker.complete(str(n), endpoint=name, prompt_tokens=5000, cached_tokens=0 if name == "a" else 4900)
        picker.table.digest_readings()
    assert _trust_of(picker) == {"llm/a": 0.5, "llm/b": 1.0}
    # It was emptied, so nothing keeps the prompt there.
    assert picker.pick("last", prompt=b"x" * 20_000) == "b"


def test_trust_of_an_endpoint_without_a_cache_goes_towards_0(picker: Picker) -> None:
    picker.serve("a")
    _answers(picker, 400, cached=0)
    assert _trust_of(picker)["llm/a"] < 1 / 64


def _trust_of(picker: Picker) -> dict[str, float]:
    return {
        sample.labels["endpoint_name"]: sample.value
        for family in learned_metrics(picker.table)
        for sample in family.samples
        if sample.name == "infergate_prefix_indexer_trust"
    }
