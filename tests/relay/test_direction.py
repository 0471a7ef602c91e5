"""What a picker owes of a body."""

import pytest

from controller.extproc.messages import BodyAnswer, HeadersAnswer, Phase
from controller.relay.direction import Direction
from controller.relay.pieces import Budget


async def test_answer_to_the_headers_gives_nothing_of_the_body_back() -> None:
    direction = Direction(Budget())
    direction.took(HeadersAnswer(Phase.RESPONSE), {})
    assert direction.awaited_since is None
    direction.sent(b"1", end=False)
    direction.took(BodyAnswer(Phase.RESPONSE, b"one", is_streamed=True), {})
    assert direction.awaited_since is None
    direction.sent(b"2", end=False)
    since = direction.awaited_since
    assert since is not None
    direction.took(HeadersAnswer(Phase.RESPONSE), {})
    assert direction.awaited_since is not None
    assert direction.awaited_since >= since


@pytest.mark.parametrize(
    "answer",
    [
        HeadersAnswer(Phase.REQUEST, body=b"another", replaces=True),
        BodyAnswer(Phase.REQUEST, b"a", is_streamed=True, end_of_stream=True),
        BodyAnswer(Phase.REQUEST, b"X", is_streamed=True),
        BodyAnswer(Phase.REQUEST, b"ab", is_streamed=True),
        BodyAnswer(Phase.REQUEST, b""),
        BodyAnswer(Phase.REQUEST),
    ],
)
async def test_request_can_be_said_again_whatever_its_picker_made_of_it(answer: HeadersAnswer | BodyAnswer) -> None:
    budget = Budget()
    direction = Direction(budget, keeps=True)
    direction.sent(b"abc", end=False)
    direction.took(answer, {})
    direction.sent(b"def", end=True)
    direction.release()
    assert b"".join(direction.original()) == b"abcdef"
    direction.clear()
    assert budget.left == Budget().left


async def test_what_is_not_to_be_said_again_is_not_kept() -> None:
    budget = Budget()
    direction = Direction(budget, keeps=True)
    direction.took(HeadersAnswer(Phase.REQUEST, body=b"", replaces=True), {})
    direction.forget()
    direction.sent(b"abc", end=True)
    assert budget.left == Budget().left
