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

    def add(self, model: str, usage: Usage, *, known: Sequence[Container[str]]) -> None:
        """Count the usage of answers of a model."""
        if model not in self.sums and not (len(self.sums) < MOST_MODELS and any(model in names for names in known)):
            model = OTHER
        sums = self.sums.setdefault(model, Usage())
        sums.answers += usage.answers
        sums.prompt_tokens += usage.prompt_tokens
        sums.cached_tokens += usage.cached_tokens
        sums.completion_tokens += usage.completion_tokens


def usage_of(completion: Completion) -> Usage | None:
    """The usage of one answer; None where it told none."""
    prompt, cached, generated = completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens
    if prompt is None and generated is None:
        return None
    return Usage(1, prompt or 0, cached or 0, generated or 0)
