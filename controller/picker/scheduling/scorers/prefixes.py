"""Scorers on the prefixes that endpoints have seen, with the formulas of the field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.matching import matched_chunks

_COLD: Final = "no-hit-lru-scorer"


@dataclass(frozen=True)
class PrefixCacheScorer:
    """The share of the prompt that an endpoint has, mixed with how long that part is."""

    surroundings: Surroundings
    match_length_weight: float = 0.0
    """Of the length of the match, against its share of the prompt; 0 to 1."""
    match_length_scale_tokens: int = 8192
    """Length that counts in full."""

    def __post_init__(self) -> None:
        if not 0 <= self.match_length_weight <= 1:
            raise ValueError(f"match_length_weight {self.match_length_weight}: must be from 0 to 1")
        if self.match_length_scale_tokens <= 0:
            raise ValueError(f"match_length_scale_tokens {self.match_length_scale_tokens}: must be above 0")

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        size = request.prompt_bytes or 1
        weight = self.match_length_weight
        scale = self.match_length_scale_tokens * BYTES_PER_TOKEN
        held = [OFFSETS[chunks] for chunks in matched_chunks(request, endpoints)]
        return [weight * min(1.0, part / scale) ** 2 + (1.0 - weight) * part / size for part in held]


@dataclass(frozen=True)
class NoHitLruScorer:
    """Spreads prompts that nobody has seen: over endpoints that never got one, then where the last is longest ago."""

    surroundings: Surroundings
    lru_size: int = 1024
    """Endpoints remembered."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        if any(matched_chunks(request, endpoints)):
            return [0.5] * len(endpoints)
        if len(endpoints) == 1:
            return [1.0]
        used = {key: place for place, key in enumerate(self._used, 1)}
        ranked = sorted(range(len(endpoints)), key=lambda place: used.get(endpoints[place].key, 0))
        scores = [0.0] * len(endpoints)
        for rank, place in enumerate(ranked):
            scores[place] = 1.0 - rank / (len(endpoints) - 1)
        return scores

    def sent(self, request: PickRequest, endpoint: Endpoint, *, now: float) -> None:
        """See `Witness`."""
        is_known = any(request.matched[1]) if request.matched else endpoint.prefixes.match(request.hashes)
        if not is_known:
            used = self._used
            used.pop(endpoint.key, None)
            used[endpoint.key] = None
            if len(used) > self.lru_size:
                del used[next(iter(used))]

    @property
    def _used(self) -> dict[tuple[str, str, str], None]:
        """Endpoints that got prompts nobody had seen, the last one last."""
        return self.surroundings.memory.keep(_COLD, dict[tuple[str, str, str], None])
