"""The scenarios: which pods there are, and what they are asked.

Lengths are in tokens, of which the simulator makes one from four bytes. Where a reader might look for a reason: the
rates are such that the best policies of each scenario keep up and careless ones do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Groups:
    """Users that share a system prompt."""

    count: int
    skew: float
    """Exponent of Zipf's law, by which some groups are more popular than others."""
    tokens: int
    """Of a system prompt."""


@dataclass(frozen=True)
class Wave:
    """A time in which a share of the sessions that begin has one more system prompt."""

    begins: float
    """Seconds from the start, as the end."""
    ends: float
    share: float


@dataclass(frozen=True)
class Pods:
    """Simulated pods. Times are theirs at speed 1."""

    count: int = 6
    slow: int = 0
    """How many of them run at half speed."""
    token_time: float = 0.00025
    """Seconds of each prompt token."""
    sequences: int = 16
    """Most that run at once on one pod."""
    blocks: int = 3000
    adapters: int = 0
    """LoRA adapters that every pod serves."""
    adapter_slots: int = 3


FAST: Final = Pods(token_time=0.0000625, sequences=32, blocks=8000)


@dataclass(frozen=True)
class Scenario:
    """Sessions arrive by a Poisson process; each of its turns but the first waits for the one before."""

    rate: float
    """Requests a second, once as many sessions end as begin."""
    turns: int
    """Of a session: on average, by a geometric distribution, or of each one where `turns_vary` is not set."""
    user_tokens: int
    """What a turn adds to the prompt on average, beside the answer before it."""
    answer_tokens: int
    groups: Groups | None = None
    """None: sessions share nothing."""
    wave: Wave | None = None
    turns_vary: bool = True
    pods: Pods = Pods()

    @property
    def sessions_per_second(self) -> float:
        return self.rate / self.turns


_SPREAD: Final = Groups(count=64, skew=0.8, tokens=2000)

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "high": Scenario(rate=26, turns=4, user_tokens=100, answer_tokens=60, groups=_SPREAD),
    "hot44": Scenario(
        rate=44, turns=4, user_tokens=100, answer_tokens=60, groups=Groups(count=24, skew=1.3, tokens=2000)
    ),
    "noprefix": Scenario(rate=13, turns=1, user_tokens=700, answer_tokens=60, turns_vary=False),
    "het": Scenario(rate=18, turns=4, user_tokens=100, answer_tokens=60, groups=_SPREAD, pods=Pods(slow=2)),
    "agents": Scenario(
        rate=10,
        turns=12,
        user_tokens=2300,
        answer_tokens=60,
        groups=Groups(count=16, skew=0.8, tokens=1500),
        turns_vary=False,
        pods=FAST,
    ),
    "hotwave": Scenario(
        rate=26, turns=4, user_tokens=100, answer_tokens=60, groups=_SPREAD, wave=Wave(begins=14, ends=26, share=0.5)
    ),
    "decode": Scenario(rate=12, turns=1, user_tokens=120, answer_tokens=300, turns_vary=False),
    "lora": Scenario(
        rate=26,
        turns=4,
        user_tokens=100,
        answer_tokens=60,
        groups=Groups(count=4, skew=0.8, tokens=1000),
        pods=Pods(adapters=10),
    ),
}
