"""Requests at a steady rate while something happens, each on a connection of its own, and what became of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

_CONNECTIONS: Final = httpx.Limits(max_keepalive_connections=0)
"""A connection that is kept may be closed by a gateway that ends, just as a request is sent on it: nobody's fault."""


@dataclass(frozen=True)
class Target:
    """What is asked for."""

    url: str
    host: str
    """Sent as `Host`."""
    model: str = ""
    """Asks the model for an answer of a few tokens; empty: asks for the models there are."""

    async def ask(self, client: httpx.AsyncClient) -> httpx.Response:
        headers = {"host": self.host}
        if not self.model:
            return await client.get(f"{self.url}/v1/models", headers=headers)
        return await client.post(
            f"{self.url}/v1/chat/completions", headers=headers, json=question(self.model, tokens=3)
        )


@dataclass
class Load:
    """What came back so far."""

    answers: list[tuple[float, httpx.Response]] = field(default_factory=list)
    """Each with the time at which it was there, by `time.monotonic`."""
    failures: list[str] = field(default_factory=list)
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait(self, count: int, *, seconds: float = 30) -> None:
        """Until so many more requests have been answered or have failed."""
        wanted = self.ended + count
        async with asyncio.timeout(seconds), self._more:
            await self._more.wait_for(lambda: self.ended >= wanted)

    @property
    def ended(self) -> int:
        return len(self.answers) + len(self.failures)

    def seen(self, header: str, *, last: int) -> set[str]:
        """Values of a header in the last answers."""
        return {answer.headers.get(header, "") for _, answer in self.answers[-last:]}

    async def send(self, target: Target, client: httpx.AsyncClient) -> None:
        try:
            answer = await target.ask(client)
            if answer.status_code == 200:
                self.answers.append((time.monotonic(), answer))
            else:
                self.failures.append(f"{answer.status_code} {answer.text[:200]}")
        except httpx.HTTPError as problem:
            self.failures.append(repr(problem))
        async with self._more:
            self._more.notify_all()


@asynccontextmanager
async def load(target: Target, *, rate: float = 20) -> AsyncIterator[Load]:
    """Requests per second until the context ends, however long they take. Certificates are not checked."""
    found = Load()
    async with client() as http, asyncio.TaskGroup() as group:
        sending = group.create_task(_keep_sending(found, target, http, group, rate=rate))
        await found.wait(5)
        try:
            yield found
        finally:
            sending.cancel()


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=_CONNECTIONS, verify=False, trust_env=False, timeout=20)


def question(model: str, *, tokens: int, **more: object) -> dict[str, Any]:  # any: JSON
    """A chat completion."""
    return {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "Hello"}], **more}


async def _keep_sending(
    found: Load, target: Target, http: httpx.AsyncClient, group: asyncio.TaskGroup, *, rate: float
) -> None:
    """On a beat of its own, so that a slow answer does not hide what fails meanwhile."""
    loop = asyncio.get_running_loop()
    beat = loop.time()
    while True:
        group.create_task(found.send(target, http))
        beat += 1 / rate
        await asyncio.sleep(max(0.0, beat - loop.time()))


async def until(
    holds: Callable[[], Any], *, seconds: float, what: str
) -> float:  # any: a truth, or an awaitable of one
    """Asks again and again until something holds. Returns the seconds it took."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = holds()
                if await found if asyncio.iscoroutine(found) else found:
                    return time.monotonic() - begun
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None
