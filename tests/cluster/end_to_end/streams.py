"""Answers that take half a minute, read event by event."""

from dataclasses import dataclass
from typing import Final

import httpx
import msgspec

from tests.cluster.end_to_end.load import Target, question

TOKENS: Final = 60
"""Of each stream, two a second."""


@dataclass
class Stream:
    """One answer as it comes."""

    target: Target

    tokens: int = 0
    is_done: bool = False
    problem: str = ""

    async def read(self, http: httpx.AsyncClient) -> None:
        target = self.target
        body = question(target.model, tokens=TOKENS, stream=True, ignore_eos=True)
        try:
            headers = {"host": target.host}
            async with http.stream("POST", f"{target.url}/v1/chat/completions", headers=headers, json=body) as answer:
                if answer.status_code != 200:
                    self.problem = f"status {answer.status_code}"
                    return
                async for line in answer.aiter_lines():
                    self._take(line)
        except httpx.HTTPError as problem:
            self.problem = repr(problem)

    def _take(self, line: str) -> None:
        text = line.removeprefix("data: ")
        if text == "[DONE]":
            self.is_done = True
        elif text and msgspec.json.decode(text)["choices"][0].get("delta", {}).get("content"):
            self.tokens += 1
