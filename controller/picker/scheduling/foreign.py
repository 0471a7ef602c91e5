"""Scorers of third parties, held to what a scorer is to say: a pick, a metric or a page of decisions relies on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Scorer


class ScoresInvalid(Exception):
    """A scorer did not say one number for each endpoint."""


@dataclass(frozen=True)
class ForeignScorer:
    """What a scorer says, in [0, 1]: what is beyond counts as the nearest, and what is no number as 0."""

    part: Scorer
    type: str

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`. Raises ScoresInvalid."""
        said = self.part.score(request, endpoints, now=now)
        try:
            # In this order NaN gives 0.
            scores = [min(max(0.0, float(score)), 1.0) for score in said]
        except (TypeError, ValueError) as error:
            raise ScoresInvalid(f"plugin {self.type}: {error}") from error
        if len(scores) != len(endpoints):
            raise ScoresInvalid(f"plugin {self.type}: {len(scores)} scores for {len(endpoints)} endpoints")
        return scores
