"""Tokens are read from the ends of answers, however they are cut."""

import json

import pytest

from controller.tokens import KEPT, NO_TOKENS, Ends, Tokens, ends_of

CHAT = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
ANTHROPIC = {"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 7}
START = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":5,"cache_read_input_tokens":3}}}\n\n'

FACTS = {
    "chat": (json.dumps({"usage": CHAT}).encode(), Tokens(9, 4, 3)),
    "responses": (
        b'{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3}}',
        (9, 4, 3),
    ),
    "anthropic": (json.dumps({"usage": ANTHROPIC}).encode(), Tokens(10, 3, 7)),
    "anthropic's stream": (START + b"x" * 9000 + b'data: {"usage":{"output_tokens":7}}\n\n', Tokens(8, 3, 7)),
    "stream": (b"x" * 9000 + b'data: {"usage":%b}\n\ndata: [DONE]\n\n' % json.dumps(CHAT).encode(), Tokens(9, 4, 3)),
    "the last of several": (b'{"usage":{"prompt_tokens":1}}{"usage":{"prompt_tokens":2}}', Tokens(2)),
    "text": (b'{"text":"\\"usage\\":{\\"prompt_tokens\\":1}"}', NO_TOKENS),
    "null": (b'{"usage":null}', NO_TOKENS),
    "before a list": (b'{"usage":{"prompt_tokens":1},"results":[%b]}' % (b"0," * KEPT), Tokens(1)),
    "a total": (b'{"usage":{"total_tokens":5}}', Tokens(5)),
    "a total of two": (b'{"usage":{"total_tokens":9,"input_tokens":4,"output_tokens":5}}', Tokens(4, None, 5)),
    "too long ago": (b" " * 2 * KEPT + b'{"usage":{"prompt_tokens":1}}' + b" " * 2 * KEPT, NO_TOKENS),
    "no numbers": (b'{"usage":{"prompt_tokens":"9","completion_tokens":-1}}', NO_TOKENS),
    "odd details": (b'{"usage":{"prompt_tokens":9,"prompt_tokens_details":[]}}', Tokens(9)),
    "not json": (b'{"usage":{prompt}}', NO_TOKENS),
    "nothing": (b"", NO_TOKENS),
}


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
@pytest.mark.parametrize(("answer", "tokens"), FACTS.values(), ids=FACTS)
def test_tokens_of_an_answer(answer: bytes, tokens: Tokens, size: int) -> None:
    ends = Ends()
    for start in range(0, len(answer), size):
        ends.add(answer[start : start + size])
    assert ends.tokens() == tokens


def test_beginning_of_a_stream_tells_nothing_of_its_end() -> None:
    told, end = b'data: {"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n', b"data: {}\n\n" * KEPT
    ends = ends_of(status=200, encoding=None, kind=b"text/Event-Stream; charset=utf-8")
    assert ends is not None
    ends.add(told)
    ends.add(end)
    assert ends.tokens() == NO_TOKENS


@pytest.mark.parametrize(
    ("status", "encoding", "is_read"), [(200, None, True), (200, b"gzip", False), (400, None, False)]
)
def test_answers_that_are_no_success_or_encoded_are_not_read(
    status: int, encoding: bytes | None, is_read: bool
) -> None:
    assert (ends_of(status=status, encoding=encoding, kind=b"application/json") is not None) == is_read
