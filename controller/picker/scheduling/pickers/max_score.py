"""Chooses the endpoint with the highest score."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest


@dataclass(frozen=True)
class MaxScorePicker:
    """The highest score; ties at random, so that replicas of the gateway do not all send to the first."""

    rng: random.Random

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Endpoint:
        """See `Picker`."""
        highest = max(scores)
        if scores.count(highest) == 1:
            return endpoints[scores.index(highest)]
        best = [endpoint for endpoint, score in zip(endpoints, scores, strict=True) if score == highest]
        return best[int(self.rng.random() * len(best))]
