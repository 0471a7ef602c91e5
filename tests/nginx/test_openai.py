"""OpenAI's own client, through a picked route."""

import io
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from controller.simulator.faults import Fault, FaultKind
from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import SECONDS, Gateway
from tests.nginx.resources import pool, route, rule, to_pool
from tests.nginx.servers import nobody

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation(gateway: Gateway) -> AsyncIterator[Simulation]:
    """Two pods with one seed, so that they answer alike, and one that is not there."""
    pods = [PodSettings(name=name, model="base", adapters=("tuned",), speed=20) for name in ("a", "b")]
    async with await simulate(pods) as simulation:
        with nobody() as dead:
            addresses = (*simulation.addresses.values(), dead)
            await gateway.apply("routes.yaml", pool("gpu", *addresses), route("all", rule(to_pool("gpu"), path="/v1")))
            yield simulation


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway, simulation: Simulation) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=SECONDS) as client:
        yield client


async def test_chat_is_answered_whole(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": "hello " * 500}], max_tokens=30
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 30


async def test_chat_is_streamed(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="tuned",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=30,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == 30
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30


async def test_streamed_text_is_that_of_the_whole_answer(client: AsyncOpenAI) -> None:
    whole = await client.completions.create(model="base", prompt="once", max_tokens=50)
    stream = await client.completions.create(model="base", prompt="once", max_tokens=50, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == whole.choices[0].text


async def test_embeddings_are_answered(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="base", input=["one", "two"])
    assert len(answer.data) == 2
    assert answer.data[0].embedding != answer.data[1].embedding


async def test_pods_see_what_clients_ask_and_nothing_else(client: AsyncOpenAI, simulation: Simulation) -> None:
    for name in "ab":
        simulation.pod(name).arrivals.clear()
    for number in range(20):
        await client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": f"{number} " * 200}], max_tokens=2
        )
    arrived = [arrival for name in "ab" for arrival in simulation.pod(name).arrivals]
    assert [arrival.path for arrival in arrived] == ["/v1/chat/completions"] * 20


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["base", "tuned"]


async def test_audio_is_transcribed(client: AsyncOpenAI) -> None:
    recording = io.BytesIO(bytes(range(256)) * 5000)
    recording.name = "speech.wav"
    answer = await client.audio.transcriptions.create(model="base", file=recording)
    assert len(answer.text.split()) == 256 * 5000 // 32_000 * 4


async def test_response_is_streamed(client: AsyncOpenAI) -> None:
    whole = await client.responses.create(model="base", input="hello", max_output_tokens=20)
    stream = await client.responses.create(model="base", input="hello", max_output_tokens=20, stream=True)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.completed"


async def test_streamed_transcript_comes_event_by_event(client: AsyncOpenAI) -> None:
    recording = io.BytesIO(bytes(range(256)) * 5000)
    recording.name = "speech.wav"
    stream = await client.audio.transcriptions.create(model="base", file=recording, stream=True)
    *deltas, done = [event async for event in stream]
    assert len(deltas) == 256 * 5000 // 32_000 * 4
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == done.text


async def test_unknown_model_is_the_pods_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `other` does not exist"):
        await client.completions.create(model="other", prompt="once")


async def test_error_of_a_pod_is_raised_as_its_own(client: AsyncOpenAI, simulation: Simulation) -> None:
    for name in simulation.addresses:
        await simulation.set_fault(name, Fault(kind=FaultKind.ERROR, status=429))
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model="base", prompt="once")
    for name in simulation.addresses:
        await simulation.set_fault(name, Fault(kind=FaultKind.NONE))


async def test_path_without_a_route_is_an_error_that_the_client_reads(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v2", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="no route matches this request") as raised:
            await client.completions.create(model="base", prompt="once")
    assert (raised.value.code, raised.value.type) == ("route_not_found", "invalid_request_error")
