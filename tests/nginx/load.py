"""A steady load of completions, and what its clients saw."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.nginx.gateway import Gateway, client_of

TOKENS = 20
"""Of an answer: a quarter of a second at the simulator's usual speed."""
PAUSE = 0.05
"""Seconds before a client that was refused asks again."""
LONGEST = 40.0
"""Seconds after which a client would give up."""


@dataclass
class Seen:
    """One request as its client saw it."""

    is_streamed: bool
    began: float
    """On the monotonic clock."""
    pod: str = ""
    """Name of the pod that answered; empty before the answer's headers."""
    outcome: str = ""
    """`whole`, `cut` after the headers of the answer, `lost` before them, or a status with its code. Empty: waiting."""


@dataclass
class Load:
    """Requests in the order in which they were sent."""

    sent: list[Seen] = field(default_factory=list)

    def served(self, *pods: str, since: float = 0.0) -> int:
        """How many requests sent after a moment were answered whole by any, or by one of these pods."""
        return sum(
            one.outcome == "whole" and one.began > since and (not pods or one.pod in pods)
            for one in reversed(self.sent)
        )

    def outcomes(self) -> Counter[str]:
        return Counter(one.outcome for one in self.sent)


@asynccontextmanager
async def steady_load(gateway: Gateway, *, clients: int) -> AsyncIterator[Load]:
    """Clients that send one request after the other until the end of the context; every second one streams."""
    load = Load()
    over = asyncio.Event()
    numbers = itertools.count()

    async def keep_asking(http: httpx.AsyncClient, *, is_streamed: bool) -> None:
        while not over.is_set():
            seen = Seen(is_streamed, time.monotonic())
            load.sent.append(seen)
            await _ask(http, seen, prompt=f"{next(numbers)} " + "words that fill a few blocks " * 12)
            if not seen.pod:
                # Refused at once: without a pause the load would be a flood.
                await asyncio.sleep(PAUSE)

    async with client_of(gateway, timeout=LONGEST) as http:
        tasks = [asyncio.create_task(keep_asking(http, is_streamed=bool(number % 2))) for number in range(clients)]
        try:
            yield load
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def _ask(http: httpx.AsyncClient, seen: Seen, *, prompt: str) -> None:
    body = {"model": "base", "prompt": prompt, "max_tokens": TOKENS, "stream": seen.is_streamed}
    try:
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            seen.pod = answer.headers.get("x-simulated-pod", "")
            text = await answer.aread()
    except httpx.TransportError:
        seen.outcome = "cut" if seen.pod else "lost"
        return
    if answer.status_code != 200:
        error = answer.json()["error"]
        seen.outcome = f"{answer.status_code} {error['code']}" if not seen.pod else str(answer.status_code)
    else:
        end = b"data: [DONE]\n\n" if seen.is_streamed else b"}"
        seen.outcome = "whole" if text.endswith(end) else "cut"
