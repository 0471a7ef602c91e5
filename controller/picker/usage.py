"""Tokens that answers report, by model.

Labels of metrics must not come from clients, so only models that the pool is known to serve count by name. Nor may
they grow without end where a pool's models come and go.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from controller.completions import Completion

OTHER: Final = "other"
"""Every model that is not known."""
MOST_MODELS: Final = 1000
"""Models counted by name in a pool."""


@dataclass
class Usage:
    """What answers took."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompts' tokens."""
    completion_tokens: int = 0


class UsageByModel:
    """Sums of a pool."""

    def __init__(self) -> None:
        self.sums: dict[str, Usage] = {}

    def add(self, model: str, completion: Completion, *, known: Sequence[Container[str]]) -> None:
        """Count what the answer of a model told."""
        sums = self.sums.get(model)
        if sums is None:
            if len(self.sums) >= MOST_MODELS or not any(model in names for names in known):
                model = OTHER
            sums = self.sums.setdefault(model, Usage())
        sums.answers += 1
        sums.prompt_tokens += completion.prompt_tokens or 0
        sums.cached_tokens += completion.cached_tokens or 0
        sums.completion_tokens += completion.completion_tokens or 0


def tells_usage(completion: Completion) -> bool:
    """Whether the answer told any."""
    return completion.prompt_tokens is not None or completion.completion_tokens is not None
