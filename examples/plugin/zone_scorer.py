"""A scorer for Infergate: endpoints in the zone that a client names come first."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class ZoneParameters(BaseModel):
    """Parameters in a PickerPolicy."""

    model_config = ConfigDict(extra="forbid")

    header: str = "x-zone"
    label: str = "topology.kubernetes.io/zone"


class ZoneScorer:
    """Endpoints in the zone that the client names."""

    type = "zone-scorer"
    kind = "scorer"
    Parameters = ZoneParameters

    def __init__(self, parameters: ZoneParameters) -> None:
        self._header = parameters.header.lower().encode()
        self._label = parameters.label

    @classmethod
    def build(cls, parameters: ZoneParameters, surroundings: object) -> "ZoneScorer":
        return cls(parameters)

    def score(self, request: Any, endpoints: Sequence[Any], *, now: float) -> list[float]:
        zone = request.headers.get(self._header, b"").decode("latin-1")
        return [float(zone == endpoint.labels.get(self._label)) for endpoint in endpoints]
