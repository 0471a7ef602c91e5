"""What is read from a body, and that a prompt that grows keeps its beginning."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from controller.picker.chunks import OFFSETS, chunk_hashes
from controller.picker.prompt import KEPT, MEDIA_BYTES, NO_PROMPT, Prompt, read_prompt
from controller.picker.requests import BodyPieces, PickRequest, pick_request

CHAT = "/v1/chat/completions"


def prompt_of(path: str = CHAT, **body: Any) -> Prompt:  # Any: fields of a body
    return read_prompt(path, json.dumps(body).encode())


def hashes_of(prompt: Prompt) -> list[int]:
    return list(chunk_hashes(prompt.stream, root=prompt.root))


def message(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content} | more


def common(a: Prompt, b: Prompt) -> int:
    """How many chunks from the first on two prompts have in common."""
    pairs = zip(hashes_of(a), hashes_of(b), strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(hashes_of(a)), len(hashes_of(b))))


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (CHAT, {"messages": [message("user", "hello")]}, b'"user""hello"'),
        ("/openai/v1/chat/completions", {"messages": [message("user", "hello")]}, b'"user""hello"'),
        ("/v1/completions", {"prompt": "hello"}, b'"hello"'),
        ("/v1/completions", {"prompt": ["a", "b"]}, b'["a", "b"]'),
        ("/v1/completions", {"prompt": [1, 256]}, b"\1\0\0\0\0\1\0\0"),
        ("/v1/embeddings", {"input": "hello"}, b'"hello"'),
        ("/v1/responses", {"instructions": "be", "input": "hello"}, b'"be""hello"'),
        ("/v1/messages", {"system": "be", "messages": [message("user", "hello")]}, b'"be""user""hello"'),
        (CHAT, {"messages": [message("user", "x")], "tools": [1]}, b'[1]"user""x"'),
    ],
)
def test_prompt_is_what_the_model_sees_in_its_order(path: str, body: dict[str, Any], text: bytes) -> None:
    assert prompt_of(path, **body).stream == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b""),
        (CHAT, b"not json"),
        (CHAT, b"[1]"),
        (CHAT, b'{"messages":'),
        (CHAT, b'{"messages":"none"}'),
        (CHAT, b"\xff\xfe"),
        ("/v1/audio/transcriptions", b"--x\r\ncontent-disposition: form-data\r\n\r\n"),
        ("/v1/models", b'{"prompt":"hello"}'),
        ("/", b'{"prompt":"hello"}'),
    ],
)
def test_body_without_a_prompt_is_no_error(path: str, body: bytes) -> None:
    assert read_prompt(path, body) == NO_PROMPT


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a","stream":"yes"}', "a"),
        (b'{"model":"a","messages":[{"content":"\\ud83d"}]}', "a"),
        (b'{"model":1,"model":"a"}', "a"),
        (b'{"model":"a","model":1}', ""),
        (b'{"model":"\\ud83d"}', ""),
        (b'{"model":"a","x":NaN}', ""),
        (b'{"model":"a","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", ""),
    ],
)
def test_model_of_an_odd_body_is_read(body: bytes, model: str) -> None:
    assert read_prompt(CHAT, body) == Prompt(model=model)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 16.0}, 16),
    ],
)
def test_longest_answer(body: dict[str, Any], expected: int | None) -> None:
    assert prompt_of(**body).max_tokens == expected


@pytest.mark.parametrize(("stream", "expected"), [(True, True), (False, False), (None, False)])
def test_whether_the_answer_is_streamed(stream: bool | None, expected: bool) -> None:
    assert prompt_of(stream=stream).is_streamed is expected


def test_conversation_that_grows_keeps_its_chunks() -> None:
    turns = [message("system", "s" * 3000), message("user", "u" * 2000)]
    before = prompt_of(model="m", messages=turns)
    answer = message("assistant", "a" * 500, tool_calls=[{"id": "1"}])
    after = prompt_of(model="m", messages=[*turns, answer, message("tool", "t" * 500, tool_call_id="1")])
    assert common(before, after) == len(hashes_of(before)) > 15


def test_order_of_keys_and_further_fields_do_not_matter() -> None:
    body: dict[str, Any] = {"messages": [message("user", "x" * 1000)], "model": "m", "temperature": 1}  # Any: fields
    other: dict[str, Any] = {"model": "m", "messages": [{"content": "x" * 1000, "role": "user"}], "user": "someone"}
    assert hashes_of(prompt_of(**body)) == hashes_of(prompt_of(**other)) != []


@pytest.mark.parametrize("change", [{"model": "adapter"}, {"cache_salt": "tenant"}, {"tools": [{"name": "t"}]}])
def test_models_salts_and_tools_share_nothing(change: dict[str, Any]) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [message("user", "x" * 5000)]}  # Any: fields
    assert common(prompt_of(**body), prompt_of(**(body | change))) == 0


def test_image_counts_for_its_tokens_and_not_for_its_bytes() -> None:
    def parts(image: str) -> list[dict[str, object]]:
        return [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": image}}]

    one = prompt_of(messages=[message("user", parts("data:" + "a" * 500_000))])
    other = prompt_of(messages=[message("user", parts("data:" + "b" * 500_000))])
    assert MEDIA_BYTES < len(one.stream) < MEDIA_BYTES + 200
    assert one.stream != other.stream


def anthropic(parts: object) -> dict[str, object]:
    return {"messages": [message("user", [{"type": "tool_result", "tool_use_id": "1", "content": parts}])]}


@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("/v1/messages", anthropic),
        ("/v1/responses", lambda parts: {"input": [message("user", "x"), message("user", parts)]}),
        ("/v1/responses", lambda parts: {"input": [{"type": "function_call_output", "call_id": "1", "output": parts}]}),
    ],
)
def test_image_within_a_part_counts_for_its_tokens(path: str, within: Callable[[object], dict[str, Any]]) -> None:
    def asked(letter: str) -> Prompt:
        image = {"type": "input_image", "image_url": "data:" + letter * 500_000}
        return prompt_of(path, **within([{"type": "input_text", "text": "is it?"}, image]))

    assert MEDIA_BYTES < len(asked("a").stream) < MEDIA_BYTES + 300
    assert asked("a").stream != asked("b").stream


def test_conversation_of_responses_keeps_its_chunks_when_an_image_comes() -> None:
    items: list[object] = [message("user", "x" * 3000), {"type": "function_call", "arguments": "y" * 9000}]
    image = {"type": "input_image", "image_url": "data:" + "a" * 500_000}
    before = prompt_of("/v1/responses", input=items)
    after = prompt_of("/v1/responses", input=[*items, message("user", [image]), message("user", "z" * 5000)])
    assert common(before, after) == len(hashes_of(before)) > 40
    assert len(after.stream) == pytest.approx(3000 + 9000 + MEDIA_BYTES + 5000, abs=400)


@pytest.mark.parametrize(
    "given", [["x" * 10_000, "y"], [{"type": 5, "content": "x" * 10_000}], ["[" * 5000], [[1.5] * 5000]]
)
def test_odd_items_count_as_they_are(given: list[object]) -> None:
    assert prompt_of("/v1/responses", input=given).stream == json.dumps(given).encode()


def test_long_text_in_parts_counts_in_full() -> None:
    prompt = prompt_of(messages=[message("user", [{"type": "text", "text": "x" * 10_000}])])
    assert len(prompt.stream) > 10_000


def test_prompt_is_not_shown() -> None:
    assert "secret" not in repr(prompt_of(messages=[message("user", "secret")]))


def test_chunks_cover_all_that_is_read() -> None:
    assert list(OFFSETS) == sorted(set(OFFSETS))
    assert KEPT <= OFFSETS[-1] < KEPT + 65_536
    assert (OFFSETS[128], OFFSETS[160], OFFSETS[400]) == (32_768, 65_536, 1_048_576)


def test_a_chunk_hash_holds_all_before_it() -> None:
    stream = bytes(range(256)) * 40
    changed = b"x" + stream[1:]
    ours, theirs = chunk_hashes(stream, root=1), chunk_hashes(changed, root=1)
    assert len(ours) == 40
    assert not set(ours) & set(theirs)
    assert chunk_hashes(stream[:600], root=1) == ours[:2]
    assert not chunk_hashes(stream[:255], root=1)


def _chat(*messages: tuple[str, str]) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": role, "content": text} for role, text in messages]}).encode()


def _request_of(body: bytes) -> PickRequest:
    pieces = BodyPieces()
    pieces.add(body)
    headers = {b"x-infergate-pool": b"llm/gpu", b"x-infergate-request": b"1", b"x-infergate-then": b"@serve"}
    return pick_request("POST", "/v1/chat/completions", headers, pieces)


def test_turn_knows_the_one_that_it_goes_on_from() -> None:
    first = [("system", "s" * 300), ("user", "Hello")]
    second = [*first, ("assistant", "a" * 2000), ("user", "And then?")]
    third = [*second, ("assistant", "b" * 100), ("tool", "1"), ("tool", "2")]
    turns = [_request_of(_chat(*messages)).turn for messages in (first, second, third)]
    one, two, three = (turn for turn in turns if turn is not None)
    assert (one.before, one.answered) == (0, 0)
    assert two.before == one.prompt
    assert (two.asked, two.answered) == (1, 9)
    assert three.before == two.prompt


def test_turn_after_another_prompt_is_another() -> None:
    told = [("user", "Hello"), ("assistant", "Hi"), ("user", "And then?")]
    changed = [("user", "Hello!"), *told[1:]]
    turns = {turn.before for messages in (told, changed) if (turn := _request_of(_chat(*messages)).turn) is not None}
    assert len(turns) == 2
    assert _request_of(b'{"prompt": "Hello"}').turn is None
