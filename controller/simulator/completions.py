"""Paths that run the model: from a request's body to the last byte of its answer."""

import time
from collections.abc import AsyncGenerator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from controller.simulator.answers import EMBEDDING_DIMENSIONS, Shape, embeddings_body
from controller.simulator.exchange import Exchange, Refused
from controller.simulator.pod import Generation, Pod
from controller.simulator.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    StreamOptions,
    TokenizeRequest,
)
from controller.simulator.responses import ResponseEvents, ResponsesRequest
from controller.simulator.running import run, stream
from controller.simulator.tokens import TOKEN_BYTES, bytes_to_token_ids, count_tokens, token_ids_to_bytes
from controller.simulator.transcripts import (
    TranscriptEvents,
    TranscriptionRequest,
    seconds_of,
    spoken_tokens,
    transcript_body,
    transcript_text,
)

_AUDIO_PROMPT_TOKENS = 1500
"""Whisper reads a window of 30 seconds as 1,500 frames."""

_B = TypeVar("_B", bound=BaseModel)


async def chat(pod: Pod, exchange: Exchange, body: bytes) -> None:
    await _generate(pod, exchange, _parse(ChatRequest, body), shape_prefix="chatcmpl-")


async def completion(pod: Pod, exchange: Exchange, body: bytes) -> None:
    await _generate(pod, exchange, _parse(CompletionRequest, body), shape_prefix="cmpl-")


async def response(pod: Pod, exchange: Exchange, body: bytes) -> None:
    request = _parse(ResponsesRequest, body)
    model = _model_of(pod, exchange, request.model)
    prompt = request.prompt_text()
    tokens, stops = _answer_length(pod, request, prompt_tokens=count_tokens(prompt))
    sequence = pod.generation(
        prompt,
        model=model,
        tokens=tokens,
        stops=stops,
        seed=request.seed,
        salt=request.cache_salt or "",
        streamed=bool(request.stream),
    )
    identifier = f"resp_{exchange.request_id or pod.identifier()}"
    events = ResponseEvents(identifier=identifier, created=int(time.time()), model=model)
    if request.stream:
        await stream(pod, exchange, [sequence], events=events, has_usage=False)
    else:
        await run(pod, exchange, [sequence])
        await exchange.answer(events.whole(sequence))


async def embeddings(pod: Pod, exchange: Exchange, body: bytes) -> None:
    request = _parse(EmbeddingRequest, body)
    model = _model_of(pod, exchange, request.model)
    texts = request.texts()
    for text in texts:
        _check_context(pod, prompt_tokens=count_tokens(text), answer_tokens=0)
    sequences = [pod.generation(text or b" ", model=model, tokens=0) for text in texts]
    await run(pod, exchange, sequences)
    answer = embeddings_body(
        sequences,
        identifier=f"embd-{exchange.request_id or pod.identifier()}",
        created=int(time.time()),
        model=model,
        as_base64=request.encoding_format == "base64",
        dimensions=request.dimensions or EMBEDDING_DIMENSIONS,
    )
    await exchange.answer(answer)


async def transcription(pod: Pod, exchange: Exchange, body: bytes) -> None:
    request, audio = await _parse_form(exchange, body)
    model = _model_of(pod, exchange, request.model)
    # The model reads one window; what the frames hold decides about cache hits, as for text.
    frames = audio[: min(_AUDIO_PROMPT_TOKENS, pod.settings.max_context // 2) * TOKEN_BYTES] or b" "
    tokens = min(spoken_tokens(audio), pod.settings.max_context - count_tokens(frames))
    sequence = pod.generation(frames, model=model, tokens=tokens, stops=True, streamed=request.stream)
    if request.stream:
        identifier = f"transcribe-{exchange.request_id or pod.identifier()}"
        events = TranscriptEvents(identifier=identifier, created=int(time.time()), model=model)
        await stream(pod, exchange, [sequence], events=events, has_usage=request.stream_include_usage)
        return
    await run(pod, exchange, [sequence])
    if request.response_format == "text":
        await exchange.answer(transcript_text(sequence), content_type=b"text/plain; charset=utf-8")
    else:
        await exchange.answer(transcript_body(sequence, seconds=seconds_of(audio)))


async def tokenize(pod: Pod, exchange: Exchange, body: bytes) -> None:
    request = _parse(TokenizeRequest, body)
    _model_of(pod, exchange, request.model)
    tokens = bytes_to_token_ids(request.prompt_text())
    longest = pod.settings.max_context
    await exchange.answer_json({"count": len(tokens), "max_model_len": longest, "tokens": tokens, "token_strs": None})


async def detokenize(pod: Pod, exchange: Exchange, body: bytes) -> None:
    request = _parse(DetokenizeRequest, body)
    _model_of(pod, exchange, request.model)
    text = token_ids_to_bytes(request.tokens).rstrip(b"\0")
    await exchange.answer_json({"prompt": text.decode(errors="replace")})


async def _generate(
    pod: Pod, exchange: Exchange, request: ChatRequest | CompletionRequest, *, shape_prefix: str
) -> None:
    model = _model_of(pod, exchange, request.model)
    sequences = _answers_to(pod, request, model=model)
    options = request.stream_options or StreamOptions()
    shape = Shape(
        is_chat=isinstance(request, ChatRequest),
        identifier=shape_prefix + (exchange.request_id or pod.identifier()),
        created=int(time.time()),
        model=model,
        choices=len(sequences),
        has_running_usage=bool(options.include_usage and options.continuous_usage_stats),
    )
    if request.stream:
        await stream(pod, exchange, sequences, events=shape, has_usage=bool(options.include_usage))
    else:
        await run(pod, exchange, sequences)
        await exchange.answer(shape.whole(sequences))


def _answers_to(pod: Pod, request: ChatRequest | CompletionRequest, *, model: str) -> list[Generation]:
    """What a request asks for: `n` answers to each prompt, prompt by prompt. Raises Refused."""
    prompts = [prompt or b" " for prompt in request.prompt_texts()]
    lengths = [_answer_length(pod, request, prompt_tokens=count_tokens(prompt)) for prompt in prompts]
    return [
        pod.generation(
            prompt,
            model=model,
            tokens=tokens,
            stops=stops,
            seed=request.seed,
            salt=request.cache_salt or "",
            streamed=bool(request.stream),
            number=number,
            stop=request.stop_texts,
        )
        for prompt, (tokens, stops) in zip(prompts, lengths, strict=True)
        for number in range(request.n or 1)
    ]


def _answer_length(
    pod: Pod, request: ChatRequest | CompletionRequest | ResponsesRequest, *, prompt_tokens: int
) -> tuple[int, bool]:
    """Tokens of the answer, and whether it ends by itself."""
    settings = pod.settings
    wanted = request.limit
    _check_context(pod, prompt_tokens=prompt_tokens, answer_tokens=wanted or 1)
    room = settings.max_context - prompt_tokens
    if wanted is None:
        own_end = room if request.ignore_eos else settings.answer_tokens
        return min(own_end, room), own_end <= room and not request.ignore_eos
    if wanted > settings.longest_answer and not request.ignore_eos:
        return settings.longest_answer, True
    return wanted, False


def _parse(kind: type[_B], body: bytes) -> _B:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> Refused:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    return Refused(400, f"{field}: {problem['msg']}" if field else problem["msg"], field or None)


async def _parse_form(exchange: Exchange, body: bytes) -> tuple[TranscriptionRequest, bytes]:
    """The fields of a multipart body, and the audio. Raises Refused."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(Headers(raw=exchange.arrival.raw_headers), whole()).parse()
    except (MultiPartException, MultipartParseError, KeyError) as error:
        raise Refused(400, "the body is not multipart/form-data") from error
    try:
        audio = form.get("file")
        if not isinstance(audio, UploadFile):
            raise Refused(400, "file: Field required", "file")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        return TranscriptionRequest.model_validate(fields), await audio.read()
    except ValidationError as error:
        raise _refusal(error) from error
    finally:
        await form.close()


def _model_of(pod: Pod, exchange: Exchange, named: str | None) -> str:
    """The model that answers: the base model where none is named, as vLLM has it. Raises Refused for an unknown one."""
    exchange.arrival.model = named
    if not named:
        return pod.settings.model
    if named not in pod.models:
        raise Refused(404, f"The model `{named}` does not exist.", "model")
    return named


def _check_context(pod: Pod, *, prompt_tokens: int, answer_tokens: int) -> None:
    longest = pod.settings.max_context
    if prompt_tokens + answer_tokens > longest:
        raise Refused(
            400,
            f"This model's maximum context length is {longest} tokens. However, you requested"
            f" {prompt_tokens + answer_tokens} tokens ({prompt_tokens} in the messages, {answer_tokens} in the"
            " completion). Please reduce the length of the messages or completion.",
        )
