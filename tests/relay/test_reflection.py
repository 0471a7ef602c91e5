"""A body on its way through a picker: what goes on, and what is left when the picker fails."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.relay.pieces import MOST_OF_ONE, Budget, Pieces
from controller.relay.reflection import Reflection


def _sent(*pieces: bytes) -> Reflection:
    reflection = Reflection(Budget())
    for number, piece in enumerate(pieces):
        reflection.sent(piece, end=number == len(pieces) - 1)
    return reflection


def test_piece_without_an_answer_of_its_own_stays() -> None:
    reflection = _sent(b"a", b"b")
    assert [reflection.answered(None), reflection.answered(b"B")] == [b"a", b"B"]
    assert (reflection.has_ended, reflection.is_changed) == (True, True)


def test_body_that_comes_back_piece_by_piece_is_unchanged() -> None:
    reflection = _sent(b"abc", b"def")
    assert reflection.streamed(b"ab", end=False) == b"ab"
    assert list(reflection.rest()) == [b"c", b"def"]
    assert not reflection.is_changed


def test_body_that_differs_has_no_rest() -> None:
    reflection = _sent(b"abc", b"def")
    reflection.streamed(b"aX", end=False)
    assert reflection.is_changed
    assert list(reflection.rest()) == []


def test_stream_that_ends_early_is_another_body() -> None:
    reflection = _sent(b"abc", b"def")
    reflection.streamed(b"abc", end=True)
    assert (reflection.has_ended, reflection.is_changed) == (True, True)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)), st.lists(st.integers(0, 200)), st.integers(0, 200))
def test_what_came_back_and_the_rest_are_the_body(body: bytes, cuts: list[int], others: list[int], stop: int) -> None:
    reflection = _sent(*_cut(body, cuts))
    came = b"".join(reflection.streamed(piece, end=False) for piece in _cut(body[:stop], others))
    assert came + b"".join(reflection.rest()) == body
    assert not reflection.is_changed


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)), st.data())
def test_what_was_sent_can_be_had_again_whatever_comes_back(body: bytes, cuts: list[int], data: st.DataObject) -> None:
    reflection = Reflection(Budget(20), keeps=True)
    try:
        pieces, went = _cut(body, cuts), b""
        for number, piece in enumerate(pieces):
            reflection.sent(piece, end=number == len(pieces) - 1)
            if reflection.has_ended or not data.draw(st.booleans()):
                continue
            if data.draw(st.booleans()):
                at = len(went)
                chunk = data.draw(st.sampled_from([body[at : at + 1], body[at : at + 9], b"X", b""]))
                went += reflection.streamed(chunk, end=data.draw(st.booleans()))
            else:
                went += reflection.answered(data.draw(st.sampled_from([None, b"X", b""])))
        found = went[: reflection.same] + b"".join(reflection.others())
    finally:
        # Also when there is nothing more to draw.
        reflection.clear()
    assert found == body


def test_what_was_sent_stays_in_its_order_when_a_stream_turns_into_answers() -> None:
    reflection = Reflection(Budget(), keeps=True)
    reflection.sent(b"ab", end=False)
    went = reflection.streamed(b"a", end=False)
    reflection.sent(b"c", end=False)
    went += reflection.answered(None)
    reflection.sent(b"d", end=True)
    assert went[: reflection.same] + b"".join(reflection.others()) == b"abcd"


def test_what_was_sent_is_not_kept_once_it_is_not_wanted() -> None:
    budget = Budget(100)
    reflection = Reflection(budget, keeps=True)
    reflection.sent(b"abc", end=False)
    reflection.streamed(b"X", end=False)
    assert budget.left == 97
    reflection.forget()
    reflection.sent(b"def", end=True)
    assert (budget.left, list(reflection.others())) == (100, [])


def _cut(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    return [body[start:end] for start, end in pairwise(places)] or [b""]


# Pieces that are kept.


def test_pieces_beyond_the_memory_of_one_body_go_to_a_file() -> None:
    budget = Budget()
    pieces = Pieces(budget)
    made = [bytes([number]) * 100_000 for number in range(12)]
    for piece in made:
        pieces.add(piece)
    assert Budget().left - budget.left <= MOST_OF_ONE
    assert [pieces.read(number) for number in range(12)] == made
    assert [pieces.drop() for _ in range(12)] == made
    assert budget.left == Budget().left


@pytest.mark.parametrize("left", [0, 50])
def test_pieces_go_to_a_file_where_the_memory_of_all_is_used(left: int) -> None:
    budget = Budget(left)
    pieces = Pieces(budget)
    pieces.add(b"x" * 40)
    pieces.add(b"y" * 40)
    assert (pieces.drop(), pieces.read(1)) == (b"x" * 40, b"y" * 40)
    pieces.clear()
    assert budget.left == left


def test_large_piece_is_read_from_its_file_bit_by_bit() -> None:
    pieces = Pieces(Budget())
    made = bytes(range(256)) * 8000
    pieces.add(b"first")
    pieces.add(made)
    pieces.add(b"last")
    found = [pieces.read(number) for number in range(len(pieces))]
    assert (b"".join(found), pieces.size) == (b"first" + made + b"last", len(made) + 9)
    assert max(map(len, found)) <= 256 * 1024
    pieces.clear()


def test_pieces_are_added_after_others_were_dropped() -> None:
    pieces = Pieces(Budget(0))
    for number in range(5):
        pieces.add(b"%d" % number)
        assert pieces.drop() == b"%d" % number
    pieces.add(b"last")
    assert (pieces.read(5), pieces.kept, len(pieces)) == (b"last", 1, 6)
    pieces.clear()
