"""The process that plays sessions: `python -m tools.bench.picking.load_process`, a job in, what became of it out.

A bare asyncio protocol on uvloop which looks into an answer only until its first text, and reads the rest when it is
complete: what it costs is taken from the machine that is measured.
"""

import asyncio
import gc
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, cast

import httptools
import msgspec
import uvloop

from tools.bench.picking.lateness import Lateness
from tools.bench.picking.load import Job, Request, Sent, Started
from tools.bench.picking.scenarios import SCENARIOS, Scenario
from tools.bench.picking.workload import Session, sessions

_TEXT: Final = re.compile(rb'"content":"[^"]')
_POD_HEADER: Final = b"x-simulated-pod"
_POST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
    b"User-Agent: infergate-bench\r\nContent-Length: %d\r\n\r\n%s"
)


def main() -> None:
    # Ctrl-C reaches the whole group of processes; who started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    scenario = SCENARIOS[job.scenario]
    todo = sessions(scenario, seed=job.seed, seconds=job.seconds)
    gc.freeze()
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _say(Started())
        _say(runner.run(play(job, scenario, todo)))


async def play(job: Job, scenario: Scenario, todo: Sequence[Session]) -> Sent:
    """Plays sessions until all have ended, or patience has."""
    player = _Player(job, scenario)
    lateness = Lateness()
    lateness.start()
    tasks = [asyncio.create_task(player.play(session)) for session in todo]
    asyncio.get_running_loop().call_later(job.seconds, lateness.stop)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=job.seconds + job.patience)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    await player.close()
    for task in tasks:
        if not task.cancelled():
            task.result()
    return Sent(requests=tuple(player.requests), lateness_p99=lateness.p99())


def _say(what: Started | Sent) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details = _Details()


class _Event(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)


@dataclass
class _Answer:
    """An answer as it comes in. Times are seconds of perf_counter: the loop's own clock counts milliseconds."""

    sent: float
    ended: "asyncio.Future[None]"
    status: int = 0
    """Set when it is complete."""
    pod: str = ""
    body: bytearray = field(default_factory=bytearray)
    first: float = 0.0
    """0 before its first text."""
    last: float = 0.0

    def events(self) -> tuple[str, _Usage | None]:
        """Its whole text, and what it says of tokens."""
        events = [_EVENT.decode(line[6:]) for line in bytes(self.body).split(b"\n\n") if line.startswith(b"data: {")]
        text = "".join(choice.delta.content or "" for event in events for choice in event.choices)
        return text, next((event.usage for event in reversed(events) if event.usage), None)


class _Connection(asyncio.Protocol):
    def __init__(self, idle: "list[_Connection]", every: "set[_Connection]") -> None:
        self.lost = asyncio.Event()
        self._idle = idle
        self._all = every
        every.add(self)
        self._loop = asyncio.get_running_loop()
        self._answer: _Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: transports of uvloop are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, problem: Exception | None) -> None:
        self._all.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        self._end()
        self.lost.set()
        self.lost.set()

    def send(self, request: bytes) -> _Answer:
        self._parser = httptools.HttpResponseParser(self)
        self._answer = answer = _Answer(perf_counter(), self._loop.create_future())
        self._transport.write(request)
        return answer

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, received: bytes) -> None:
        try:
            self._parser.feed_data(received)
        except httptools.HttpParserError:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _POD_HEADER and self._answer:
            self._answer.pod = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        answer.body += piece
        if not answer.first and _TEXT.search(answer.body):
            answer.first = perf_counter()

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()
            self._answer.last = perf_counter()
        self._end()
        if self._parser.should_keep_alive():
            self._idle.append(self)
        else:
            self._transport.close()

    def _end(self) -> None:
        if self._answer is not None and not self._answer.ended.done():
            self._answer.ended.set_result(None)
        self._answer = None


class _Player:
    """Plays sessions and notes what became of each request."""

    def __init__(self, job: Job, scenario: Scenario) -> None:
        self._job = job
        self._scenario = scenario
        self._loop = asyncio.get_running_loop()
        self._begun = perf_counter()
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self.requests: list[Request] = []

    async def play(self, session: Session) -> None:
        """Until its last answer, an answer that fails, or the end of the run."""
        messages = [{"role": "system", "content": session.system}] if session.system else []
        due = self._begun + session.begins
        for turn in session.turns:
            due += turn.pause
            if due - self._begun >= self._job.seconds:
                return
            await asyncio.sleep(due - perf_counter())
            messages.append({"role": "user", "content": turn.text})
            text = await self._ask(session.model, messages, due=due)
            if not text:
                return
            messages.append({"role": "assistant", "content": text})
            due = perf_counter()

    async def close(self) -> None:
        """Closes all connections."""
        open_ones = tuple(self._all)
        for connection in open_ones:
            connection.close()
        for connection in open_ones:
            await connection.lost.wait()

    async def _ask(self, model: str, messages: Sequence[dict[str, str]], *, due: float) -> str:
        """The answer's text; empty when there is none."""
        body = msgspec.json.encode(
            {
                "model": model,
                "messages": messages,
                "max_tokens": self._scenario.answer_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        sent = perf_counter()
        connection = await self._connection()
        if connection is None:
            self.requests.append(Request(sent=sent - self._begun, late=sent - due, status=0))
            return ""
        answer = connection.send(_POST % (self._job.host.encode(), len(body), body))
        try:
            await answer.ended
        finally:
            if not answer.ended.done() or answer.ended.cancelled():
                connection.close()
            text = self._note(answer, late=answer.sent - due)
        return text

    async def _connection(self) -> _Connection | None:
        """An idle one, or one that is made; None when it cannot be."""
        if self._idle:
            return self._idle.pop()
        try:
            return (
                await self._loop.create_connection(
                    lambda: _Connection(self._idle, self._all), "127.0.0.1", self._job.port
                )
            )[1]
        except OSError:
            return None

    def _note(self, answer: _Answer, *, late: float) -> str:
        sent = answer.sent - self._begun
        text, usage = answer.events() if answer.status == 200 else ("", None)
        if usage is None or not answer.first:
            status = 0 if answer.status == 200 else answer.status
            self.requests.append(Request(sent=sent, late=late, status=status, pod=answer.pod))
            return ""
        self.requests.append(
            Request(
                sent=sent,
                late=late,
                status=answer.status,
                pod=answer.pod,
                first=answer.first - answer.sent,
                whole=answer.last - answer.sent,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.prompt_tokens_details.cached_tokens,
                answer_tokens=usage.completion_tokens,
            )
        )
        return text


if __name__ == "__main__":
    main()
