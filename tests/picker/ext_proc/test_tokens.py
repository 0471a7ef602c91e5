"""Tokens are read from the ends of answers, however they are cut."""

import json

import pytest

from controller.picker.ext_proc.tokens import KEPT, NO_TOKENS, Ends, Tokens

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
    "too long ago": (b'{"usage":{"prompt_tokens":1}}' + b" " * 2 * KEPT, NO_TOKENS),
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
