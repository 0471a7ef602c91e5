"""The sessions of a scenario. The same scenario and seed give the same sessions in every process."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from tools.bench.picking.scenarios import Groups, Scenario

MODEL: Final = "simulated"
THINKING: Final = 0.5
"""Seconds from the end of an answer to the next turn of its session, on average, by an exponential distribution."""
_TOKEN_BYTES: Final = 4
_SPREAD: Final = 0.6
"""Of the logarithm of what users write: one in ten writes 1.8 times the mean, or more."""
_SHORTEST: Final = 4
"""Tokens that a user writes at least."""
_LONGEST: Final = 24
"""Turns of a session. One in a thousand would have more, and grow beyond what the pods take."""


@dataclass(frozen=True)
class Turn:
    pause: float
    """Seconds since the end of the answer before it; 0 for the first."""
    text: str = field(repr=False)


@dataclass(frozen=True)
class Session:
    begins: float
    """Seconds from the start of the run."""
    model: str
    """The base model or one of its adapters."""
    system: str = field(repr=False)
    """The prompt that is shared with others; empty without one."""
    turns: tuple[Turn, ...]


def adapters(scenario: Scenario) -> tuple[str, ...]:
    """Names of the LoRA adapters."""
    return tuple(f"adapter-{number}" for number in range(scenario.pods.adapters))


def sessions(scenario: Scenario, *, seed: int, seconds: float) -> tuple[Session, ...]:
    """All that begin within so many seconds, in order."""
    # Each has its own source of chance, so that a longer run begins like a shorter one.
    arrivals = random.Random(f"arrivals/{seed}")
    prompts = _Prompts(scenario, seed=seed)
    found: list[Session] = []
    begins = arrivals.expovariate(scenario.sessions_per_second)
    while begins < seconds:
        found.append(_session(scenario, prompts, begins=begins, chance=random.Random(f"session/{seed}/{len(found)}")))
        begins += arrivals.expovariate(scenario.sessions_per_second)
    return tuple(found)


def _session(scenario: Scenario, prompts: "_Prompts", *, begins: float, chance: random.Random) -> Session:
    system = prompts.choose(chance, begins=begins)
    model = chance.choice(adapters(scenario) or (MODEL,))
    turns = tuple(
        Turn(pause=chance.expovariate(1 / THINKING) if number else 0.0, text=_text(chance, _length(scenario, chance)))
        for number in range(_turn_count(scenario, chance))
    )
    return Session(begins=begins, model=model, system=system, turns=turns)


def _turn_count(scenario: Scenario, chance: random.Random) -> int:
    if not scenario.turns_vary:
        return scenario.turns
    count = 1
    while count < _LONGEST and chance.random() >= 1 / scenario.turns:
        count += 1
    return count


def _length(scenario: Scenario, chance: random.Random) -> int:
    """Tokens that a user writes."""
    mean = 1 / math.exp(_SPREAD**2 / 2)
    return max(_SHORTEST, round(scenario.user_tokens * mean * chance.lognormvariate(0, _SPREAD)))


class _Prompts:
    """The system prompts of a run."""

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        groups = scenario.groups or Groups(count=1, skew=1.0, tokens=0)
        self._texts = [_text(random.Random(f"system/{seed}/{each}"), groups.tokens) for each in range(groups.count)]
        self._weights: Sequence[float] = tuple(
            accumulate(1 / (rank + 1) ** groups.skew for rank in range(groups.count))
        )
        self._wave = scenario.wave
        self._hot = _text(random.Random(f"system/{seed}/wave"), groups.tokens)

    def choose(self, chance: random.Random, *, begins: float) -> str:
        drawn = chance.random()
        text = chance.choices(self._texts, cum_weights=self._weights)[0]
        wave = self._wave
        return self._hot if wave and wave.begins <= begins < wave.ends and drawn < wave.share else text


def _text(chance: random.Random, tokens: int) -> str:
    """Text of so many tokens. It is noise: nobody reads it, and no two have a beginning in common."""
    return chance.randbytes(tokens * _TOKEN_BYTES // 2).hex()
