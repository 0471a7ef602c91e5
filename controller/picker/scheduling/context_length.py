"""Endpoints that are labelled with the context lengths they are for."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings


@dataclass(frozen=True)
class ContextLengthAware:
    """Prefers the narrowest range that holds the prompt's length, of a label like `0-8192`."""

    surroundings: Surroundings
    label: str = "llm-d.ai/context-length-range"
    enable_filtering: bool = False
    """Whether endpoints of other ranges are left out."""

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`. An endpoint without the label is for every length; where none fits, all remain."""
        if not self.enable_filtering:
            return endpoints
        length = request.prompt_bytes // BYTES_PER_TOKEN
        fitting = [endpoint for endpoint in endpoints if _fits(endpoint.labels.get(self.label), length)]
        return fitting or endpoints

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        length = request.prompt_bytes // BYTES_PER_TOKEN
        return [_score(endpoint.labels.get(self.label), length) for endpoint in endpoints]


def _fits(label: str | None, length: int) -> bool:
    if label is None:
        return True
    held = _range(label)
    return held is not None and held[0] <= length <= held[1]


def _score(label: str | None, length: int) -> float:
    if label is None:
        return 0.5
    held = _range(label)
    if held is None:
        return 0.0
    least, most = held
    if not least <= length <= most:
        return 0.3 / (1.0 + max(least - length, length - most) / 1000)
    width = most - least
    if not width:
        return 1.0
    return 0.3 + 0.7 * (0.7 / (1.0 + width / 10_000) + 0.3 * (most - length) / width)


def _range(label: str) -> tuple[int, int] | None:
    """Least and most tokens; None when the label does not say."""
    least, dash, most = label.partition("-")
    if not dash or not (least.isascii() and least.isdigit() and most.isascii() and most.isdigit()):
        return None
    # No context is longer, and a longer number is slow to read.
    held = (int(least[:12]), int(most[:12]))
    return held if held[0] <= held[1] else None
