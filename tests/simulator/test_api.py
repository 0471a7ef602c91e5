"""What a client sees, through OpenAI's client where it can."""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from controller.simulator.pods import Simulation

Start = Callable[..., Awaitable[Simulation]]
HELLO: ChatCompletionUserMessageParam = {"role": "user", "content": "hello " * 40}


@pytest.fixture
async def address(start: Start) -> str:
    """Of a pod with one adapter."""
    return (await start("a", adapters=["tuned"], max_context=2000)).addresses["a"]


@pytest.fixture
async def client(address: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


async def test_a_chat_is_answered_with_as_many_tokens_as_asked_for(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=7)
    choice = answer.choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.content is not None
    assert len(choice.message.content) == 7 * 4
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (66, 7, 73)


async def test_an_answer_without_limit_stops_by_itself(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="base", messages=[HELLO])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 60


@pytest.mark.parametrize(("ignore_eos", "tokens", "reason"), [(False, 20, "stop"), (True, 30, "length")])
async def test_a_long_answer_stops_unless_the_end_is_ignored(
    start: Start, http: httpx.AsyncClient, ignore_eos: bool, tokens: int, reason: str
) -> None:
    address = (await start(longest_answer=20)).addresses["a"]
    body = {"model": "base", "prompt": "x", "max_tokens": 30, "ignore_eos": ignore_eos}
    answer = (await http.post(f"http://{address}/v1/completions", json=body)).json()
    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == reason


async def test_a_repeated_prompt_reports_cached_tokens(client: openai.AsyncOpenAI) -> None:
    cached = []
    for _ in range(2):
        answer = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, 64]


async def test_the_next_turn_of_a_conversation_finds_the_answer_cached(client: openai.AsyncOpenAI) -> None:
    first = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=60)
    said = first.choices[0].message.content
    answer = await client.chat.completions.create(
        model="base", messages=[HELLO, {"role": "assistant", "content": said}, HELLO], max_tokens=1
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == (66 + 60 - 1) // 16 * 16


async def test_a_streamed_chat_says_the_same_as_a_whole_one(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=9)
    stream = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=9, stream=True)
    events = [event async for event in stream]
    assert events[0].choices[0].delta.role == "assistant"
    text = "".join(event.choices[0].delta.content or "" for event in events)
    assert text == whole.choices[0].message.content
    assert [event.choices[0].finish_reason for event in events] == [None] * 9 + ["length"]
    assert all(event.usage is None for event in events)


async def test_usage_comes_last_in_a_stream_that_asks_for_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="base", messages=[HELLO], max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    last = [event async for event in stream][-1]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (66, 3)


async def test_a_completion_streams_text(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="base", prompt="once upon", max_tokens=5)
    stream = await client.completions.create(model="base", prompt="once upon", max_tokens=5, stream=True)
    events = [event async for event in stream]
    assert "".join(event.choices[0].text for event in events) == whole.choices[0].text
    assert len(events) == 5


@pytest.mark.parametrize("asked", ["hello", [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]])
async def test_a_response_is_answered(client: openai.AsyncOpenAI, asked: Any) -> None:  # Any: OpenAI's type is long
    answer = await client.responses.create(model="base", input=asked, instructions="be brief", max_output_tokens=5)
    assert len(answer.output_text) == 5 * 4
    assert (answer.status, answer.incomplete_details and answer.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (13, 5, 18)


async def test_a_streamed_response_says_the_same_as_a_whole_one(client: openai.AsyncOpenAI) -> None:
    whole = await client.responses.create(model="base", input="hello")
    assert whole.status == "completed"
    async with client.responses.stream(model="base", input="hello") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert (final.output_text, final.usage and final.usage.output_tokens) == (whole.output_text, 60)
    assert [event.type for event in events if "delta" not in event.type] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_several_answers_are_as_many_choices(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=5, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (66, 15)
    stream = await client.chat.completions.create(
        model="base", messages=[HELLO], max_tokens=5, n=3, stream=True, stream_options={"include_usage": True}
    )
    said = ["", "", ""]
    async for event in stream:
        for choice in event.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == texts
    assert event.usage is not None
    assert (event.usage.prompt_tokens, event.usage.completion_tokens) == (66, 15)


@pytest.mark.parametrize("prompts", [["one", "two two"], [[1, 2], [3]]])
async def test_several_prompts_are_answered_in_order(
    client: openai.AsyncOpenAI, prompts: list[str] | list[list[int]]
) -> None:
    alone = [(await client.completions.create(model="base", prompt=prompt, max_tokens=4)) for prompt in prompts]
    answer = await client.completions.create(model="base", prompt=prompts, max_tokens=4)
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3
    stream = await client.completions.create(model="base", prompt=prompts, max_tokens=4, n=2, stream=True)
    counts = Counter([event.choices[0].index async for event in stream])
    assert counts == dict.fromkeys(range(4), 4)


async def test_an_answer_ends_before_a_stop_string(client: openai.AsyncOpenAI) -> None:
    full = (await client.completions.create(model="base", prompt="go", max_tokens=9)).choices[0].text
    stop = full[14:17]
    answer = await client.completions.create(model="base", prompt="go", max_tokens=9, stop=["not there", stop])
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (full[: full.index(stop)], "stop")
    assert choice.model_dump()["stop_reason"] == stop
    assert answer.usage is not None
    assert answer.usage.completion_tokens == -(-(full.index(stop) + 3) // 4)
    stream = await client.completions.create(model="base", prompt="go", max_tokens=9, stop=stop, stream=True)
    events = [event async for event in stream]
    assert "".join(event.choices[0].text for event in events) == choice.text
    assert events[-1].choices[0].finish_reason == "stop"


async def test_usage_may_come_with_every_event(address: str, http: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": "base", "messages": [HELLO], "max_tokens": 3, "stream": True, "stream_options": options}
    answer = await http.post(f"http://{address}/v1/chat/completions", json=body)
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n")[1:-2]]
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 2, 3, 3]
    assert {event["usage"]["prompt_tokens"] for event in events} == {66}


@pytest.mark.parametrize("prompt", ["abcdefgh", ["abcdefgh"], [1, 2], [[1, 2]]])
async def test_a_prompt_may_be_text_or_token_ids(
    client: openai.AsyncOpenAI, prompt: str | list[str] | list[int] | list[list[int]]
) -> None:
    answer = await client.completions.create(model="base", prompt=prompt, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2


async def test_an_image_counts_as_256_tokens(address: str, http: httpx.AsyncClient) -> None:
    counts = []
    text = {"type": "text", "text": "what is"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for parts in ([text], [text, image]):
        body = {"model": "base", "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
        answer = (await http.post(f"http://{address}/v1/chat/completions", json=body)).json()
        counts.append(answer["usage"]["prompt_tokens"])
    assert counts[1] - counts[0] == 256


async def test_embeddings_depend_on_the_text_only(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="base", input=["one", "two", "one"])
    one, two, again = (item.embedding for item in answer.data)
    assert one == again != two
    assert len(one) == 64
    assert answer.usage.prompt_tokens == 3


async def test_embeddings_are_the_same_in_both_encodings(client: openai.AsyncOpenAI) -> None:
    packed = await client.embeddings.create(model="base", input="one", dimensions=5)
    plain = await client.embeddings.create(model="base", input="one", dimensions=5, encoding_format="float")
    assert packed.data[0].embedding == plain.data[0].embedding


async def test_audio_is_transcribed(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(model="base", file=("a.wav", b"\0" * 96_000))
    assert len(answer.text.split()) == 12


async def test_a_streamed_transcript_is_read_by_the_client_of_openai(client: openai.AsyncOpenAI) -> None:
    audio = ("a.wav", b"\0" * 96_000)
    whole = await client.audio.transcriptions.create(model="base", file=audio)
    stream = await client.audio.transcriptions.create(model="base", file=audio, stream=True)
    *deltas, done = [event async for event in stream]
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == whole.text
    assert len(deltas) == 12
    assert done.type == "transcript.text.done"
    assert done.text == whole.text
    assert done.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (1000, 12)


async def test_a_streamed_transcript_is_read_by_clients_of_vllm(address: str, http: httpx.AsyncClient) -> None:
    form = {"model": "base", "stream": "true", "stream_include_usage": "true"}
    files = {"file": ("a.wav", b"\0" * 96_000)}
    answer = await http.post(f"http://{address}/v1/audio/transcriptions", data=form, files=files)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done = (line.removeprefix("data: ") for line in answer.text.strip().split("\n\n"))
    chunks = [chunk for chunk in map(json.loads, events) if "choices" in chunk]
    assert {chunk["object"] for chunk in chunks} == {"transcription.chunk"}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len("".join(choice["delta"]["content"] for choice in choices).split()) == 12
    assert [choice.get("finish_reason") for choice in choices] == [None] * 11 + ["stop"]
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert done == "[DONE]"


@pytest.mark.parametrize("fields", [{"stream": "perhaps"}, {"response_format": "morse"}])
async def test_a_wrong_field_of_a_form_is_refused(
    address: str, http: httpx.AsyncClient, fields: dict[str, str]
) -> None:
    url = f"http://{address}/v1/audio/transcriptions"
    answer = await http.post(url, data={"model": "base", **fields}, files={"file": ("a.wav", b"abc")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, *fields)


async def test_models_are_listed_with_their_parent(client: openai.AsyncOpenAI) -> None:
    models = [(model.id, model.model_dump()["parent"]) async for model in client.models.list()]
    assert models == [("base", None), ("tuned", "base")]


async def test_adapter_comes_and_goes_while_the_pod_runs(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start("late")
    url = f"http://{simulation.addresses['late']}"

    async def change(what: str, **more: object) -> tuple[int, str]:
        body = {"lora_name": "x", "lora_path": "/x", **more}
        answer = await http.post(f"{url}/v1/{what}_lora_adapter", json=body)
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()["error"]["type"] if is_json else answer.text

    async def listed() -> list[str]:
        return [model["id"] for model in (await http.get(f"{url}/v1/models")).json()["data"]]

    assert await change("load", lora_path="") == (400, "InvalidUserInput")
    assert await change("load") == (200, "Success: LoRA adapter 'x' added successfully.")
    assert await change("load") == (400, "InvalidUserInput")
    assert (await change("load", load_inplace=True))[0] == 200
    assert await listed() == ["base", "x"]
    assert await change("unload") == (200, "Success: LoRA adapter 'x' removed successfully.")
    assert await change("unload") == (404, "NotFoundError")
    assert await listed() == ["base"]


async def test_an_adapter_is_a_model_and_an_unknown_model_is_not(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="tuned", messages=[HELLO], max_tokens=1)
    assert answer.model == "tuned"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="other", messages=[HELLO])
    assert caught.value.body == {
        "message": "The model `other` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


@pytest.mark.parametrize("named", [{}, {"model": None}, {"model": ""}])
async def test_without_a_model_the_base_model_answers(
    address: str, http: httpx.AsyncClient, named: dict[str, object]
) -> None:
    for path, body in (("completions", {"prompt": "x", "max_tokens": 1}), ("embeddings", {"input": "x"})):
        answer = await http.post(f"http://{address}/v1/{path}", json={**named, **body})
        assert (answer.status_code, answer.json()["model"]) == (200, "base")
    form = await http.post(f"http://{address}/v1/audio/transcriptions", files={"file": ("a.wav", b"abc")})
    assert form.status_code == 200


@pytest.mark.parametrize("field", ["stream", "stream_options", "max_tokens", "n", "seed", "cache_salt", "stop"])
async def test_null_is_as_good_as_nothing(address: str, http: httpx.AsyncClient, field: str) -> None:
    body = {"model": "base", "messages": [HELLO]}
    answers = [
        await http.post(f"http://{address}/v1/chat/completions", json=each) for each in (body, {**body, field: None})
    ]
    texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[1]


async def test_a_context_over_the_limit_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2000 tokens") as caught:
        await client.chat.completions.create(model="base", messages=[HELLO], max_tokens=1935)
    assert "(66 in the messages, 1935 in the completion)" in caught.value.message


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("chat/completions", b"{", "Invalid JSON"),
        ("chat/completions", b'{"model": "base"}', "messages: Field required"),
        ("chat/completions", b'{"model": "base", "messages": []}', "messages: List should have at least 1 item"),
        ("completions", b'{"model": "base", "prompt": "x", "n": 0}', "n: Input should be greater"),
        ("completions", b'{"model": "base", "prompt": "x", "max_tokens": 0}', "max_tokens: Input should be greater"),
        ("completions", b'{"model": "base", "prompt": "x", "stream_options": {}}', "Stream options can only"),
        ("audio/transcriptions", b"plain", "the body is not multipart/form-data"),
    ],
)
async def test_a_wrong_body_is_refused(
    address: str, http: httpx.AsyncClient, path: str, body: bytes, message: str
) -> None:
    answer = await http.post(f"http://{address}/v1/{path}", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert message in error["message"]


async def test_a_pod_is_pinged_and_tells_its_version(address: str, http: httpx.AsyncClient) -> None:
    for answer in (await http.get(f"http://{address}/ping"), await http.post(f"http://{address}/ping")):
        assert (answer.status_code, answer.content) == (200, b"")
    assert list((await http.get(f"http://{address}/version")).json()) == ["version"]


@pytest.mark.parametrize(
    "asked", [{"prompt": "so many words"}, {"messages": [{"role": "user", "content": "h\u00e9llo"}]}]
)
async def test_a_text_is_as_many_tokens_as_its_prompt_counts(
    client: openai.AsyncOpenAI, address: str, http: httpx.AsyncClient, asked: dict[str, object]
) -> None:
    told = (await http.post(f"http://{address}/tokenize", json={"model": "base", **asked})).json()
    assert told["count"] == len(told["tokens"])
    assert told["max_model_len"] == 2000
    answer = await client.completions.create(model="base", prompt=told["tokens"], max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == told["count"]
    back = (await http.post(f"http://{address}/detokenize", json={"model": "base", "tokens": told["tokens"]})).json()
    assert back["prompt"] == asked.get("prompt", "<|user|>\nh\u00e9llo\n<|assistant|>\n")


async def test_an_unknown_path_is_404_and_a_wrong_method_405(address: str, http: httpx.AsyncClient) -> None:
    for path in ("/", "/v2/models", "/simulator/nothing"):
        answer = await http.get(f"http://{address}{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFoundError")
    assert (await http.get(f"http://{address}/v1/completions")).status_code == 405


async def test_every_answer_names_its_pod_and_echoes_the_request_id(address: str, http: httpx.AsyncClient) -> None:
    for path in ("/health", "/metrics", "/", "/simulator/pods"):
        answer = await http.get(f"http://{address}{path}", headers={"x-request-id": "r-1"})
        assert answer.headers["x-simulated-pod"] == "a"
        assert answer.headers["x-request-id"] == "r-1"


async def test_a_body_of_50_mb_arrives_whole(address: str, http: httpx.AsyncClient) -> None:
    content = json.dumps({"model": "base", "prompt": "x" * 50_000_000}).encode()
    answer = await http.post(f"http://{address}/v1/completions", content=content)
    assert "(12500000 in the messages" in answer.json()["error"]["message"]
    (arrival,) = (await http.get(f"http://{address}/simulator/requests")).json()
    assert arrival["body_bytes"] == len(content)
    assert arrival["body_sha256"] == hashlib.sha256(content).hexdigest()


async def test_pods_of_one_seed_answer_alike_and_others_do_not(start: Start, http: httpx.AsyncClient) -> None:
    texts = []
    for simulation in (await start("a", "b", seed=1), await start("c", seed=2)):
        for address in simulation.addresses.values():
            body = {"model": "base", "prompt": "tell me"}
            answer = await http.post(f"http://{address}/v1/completions", json=body)
            texts.append(answer.json()["choices"][0]["text"])
    assert texts[0] == texts[1] != texts[2]


async def test_headers_of_a_stream_come_on_arrival(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start(speed=0.001)
    body = {"model": "base", "prompt": "x", "stream": True}
    async with http.stream("POST", f"http://{simulation.addresses['a']}/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        assert b'generation_tokens_total{model_name="base",engine="0"} 0' in simulation.pod("a").metrics()


async def test_headers_of_a_stream_can_wait_for_its_first_token(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start(headers_wait=True)
    body = {"model": "base", "prompt": "x", "stream": True}
    async with http.stream("POST", f"http://{simulation.addresses['a']}/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        assert b'generation_tokens_total{model_name="base",engine="0"} 0' not in simulation.pod("a").metrics()
