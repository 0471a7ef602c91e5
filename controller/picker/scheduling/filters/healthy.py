"""Prefers endpoints that neither fail nor fell silent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings

FRESH_SHARE: Final = 0.5
"""Below this share of fresh readings it is the scraping that fails: its age tells nothing, and sending everything to
the few that are fresh would do harm. Envoy's panic threshold is half too."""


@dataclass(frozen=True)
class HealthyFilter:
    """Fresh endpoints that do not pause; else those that do not pause; else all."""

    surroundings: Surroundings

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        oldest = now - self.surroundings.staleness
        for endpoint in endpoints:
            if endpoint.answered_at < oldest or endpoint.health.pause:
                break
        else:
            return endpoints
        serving = [
            endpoint for endpoint in endpoints if not endpoint.health.pause or now >= endpoint.health.paused_until
        ]
        if not serving:
            return endpoints
        fresh = [endpoint for endpoint in serving if endpoint.answered_at >= oldest]
        return fresh if len(fresh) >= FRESH_SHARE * len(serving) and fresh else serving
