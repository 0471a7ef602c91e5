"""What a picker owes of a body."""

from controller.extproc.messages import BodyAnswer, HeadersAnswer, Phase
from controller.relay.dialogue import Direction
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
