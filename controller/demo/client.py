"""A client of the gateway that says who served it."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from controller.demo.judge import Answer
from controller.demo.servers import MODEL
from controller.errors import InfergateError

CANARY: Final = "/v1/chat/completions"
PRIORITY: Final = "/priority/v1/chat/completions"
COMPLEX: Final = {"X-Query-Complexity": "high"}

_LOG_SECONDS: Final = 5.0
"""The access log has a request as soon as it ended."""


class NotLogged(InfergateError):
    """A request is missing in the access log."""


@dataclass
class Client:
    """Sends requests, each on a connection of its own: one that is kept talks on to a worker that a reload retired."""

    http: httpx.AsyncClient
    clock: Callable[[], float]
    _numbers: Iterator[int] = field(default_factory=itertools.count, init=False)

    async def transcribe(self) -> Answer:
        """A recording, with a model in the payload that the audio servers do not have."""
        silence = bytes(32_000)
        return await self._post(
            "/v1/audio/transcriptions", data={"model": MODEL}, files={"file": ("silence.wav", silence, "audio/wav")}
        )

    async def chat(self, path: str = CANARY, *, headers: Mapping[str, str] | None = None) -> Answer:
        """A question that is answered with one token."""
        number = next(self._numbers)
        return await self._post(path, headers=headers, json=_question(number, max_tokens=1))

    def stream(self, *, headers: Mapping[str, str] | None = None, max_tokens: int) -> "Streamed":
        """A chat on the priority route whose long answer is read as it comes, until the context ends."""
        number = next(self._numbers)
        body = _question(number, max_tokens=max_tokens) | {"stream": True, "ignore_eos": True}
        return Streamed(self.http, headers=dict(headers or {}) | _identity(number), body=body)

    async def _post(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Answer:
        identity = _identity(next(self._numbers))
        name, begun = identity["X-Request-Id"], self.clock()
        sent = dict(headers or {}) | identity
        try:
            answer = await self.http.post(path, headers=sent, json=json, data=data, files=files)
        except httpx.TransportError:
            return Answer(name, status=0, pool="", begun=begun)
        return _answer(name, answer, begun=begun)


class Streamed:
    """An answer in events. On entry the first one has come."""

    def __init__(self, http: httpx.AsyncClient, *, headers: Mapping[str, str], body: object) -> None:
        self.answer = Answer(headers["X-Request-Id"], status=0, pool="")
        self.is_event_stream = False
        self.has_ended = False
        """Whether the server ended it, before the context did."""
        self.events = 0
        self._request = http.build_request("POST", PRIORITY, headers=headers, json=body)
        self._http = http
        self._first = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Streamed":
        self._reading = asyncio.create_task(self._read())
        await self._first.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> None:
        try:
            answer = await self._http.send(self._request, stream=True)
            try:
                self.answer = _answer(self.answer.id, answer)
                self.is_event_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
                async for line in answer.aiter_lines():
                    self.events += line.startswith("data: {")
                    if self.events:
                        self._first.set()
            finally:
                await answer.aclose()
            self.has_ended = True
        except httpx.TransportError:
            self.has_ended = True
        finally:
            self._first.set()


async def endpoints_of(ids: Iterable[str], *, access_log: Path) -> dict[str, str]:
    """Address of the endpoint that served each request. Waits until all are logged; raises NotLogged."""
    wanted = set(ids)
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(_LOG_SECONDS):
            while not wanted <= found.keys():
                found = await asyncio.to_thread(_logged, access_log)
                await asyncio.sleep(0.02)
    except TimeoutError:
        missing = ", ".join(sorted(wanted - found.keys())[:5])
        raise NotLogged(f"{access_log}: no line of requests {missing}") from None
    return {each: found[each] for each in wanted}


def _answer(name: str, answer: httpx.Response, *, begun: float = 0.0) -> Answer:
    return Answer(name, status=answer.status_code, pool=answer.headers.get("x-demo-pool", ""), begun=begun)


def _question(number: int, *, max_tokens: int) -> dict[str, object]:
    # Each begins in its own way, so that no pod is chosen for what it has cached.
    text = f"{number * 7919 % 10007}: name a number."
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}


def _identity(number: int) -> dict[str, str]:
    return {"X-Request-Id": f"demo-{number}"}


def _logged(access_log: Path) -> dict[str, str]:
    lines = access_log.read_text().splitlines(keepends=True)
    # The last line may be half written.
    entries = (json.loads(line) for line in lines if line.endswith("}\n"))
    return {entry["request_id"]: entry["endpoint"] for entry in entries}
