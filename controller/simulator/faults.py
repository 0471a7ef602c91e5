"""Faults that a pod can be told to have."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FaultKind(StrEnum):
    NONE = "none"
    """Recovers from any other; a pod that died starts with an empty cache."""
    ERROR = "error"
    """Answers with an error status."""
    RESET = "reset"
    """Reads the request, then resets the connection before any byte of the answer."""
    HANG = "hang"
    """Reads the request and says nothing. Without `count` answers that have begun stop as well, until it recovers."""
    SLOW = "slow"
    """Every step takes `factor` times as long."""
    DIE = "die"
    """Closes all connections and refuses new ones."""


_PER_REQUEST = (FaultKind.ERROR, FaultKind.RESET, FaultKind.HANG)


class FaultPaths(StrEnum):
    INFERENCE = "inference"
    """Paths that run the model."""
    METRICS = "metrics"
    """The metrics page alone: the pod serves and cannot be scraped."""
    ALL = "all"
    """Every path but those under /simulator."""


class Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    status: Annotated[int, Field(ge=400, le=599)] = 500
    """Of `error`."""
    factor: Annotated[float, Field(gt=0)] = 4.0
    """Of `slow`."""
    count: Annotated[int, Field(ge=1)] | None = None
    """How many requests an `error`, `reset` or `hang` strikes; None is all until it recovers."""
    paths: FaultPaths = FaultPaths.INFERENCE
    """What an `error`, `reset` or `hang` strikes."""

    @property
    def stops_the_engine(self) -> bool:
        """Whether nothing is computed until the pod recovers."""
        return self.kind is FaultKind.HANG and self.count is None and self.paths is not FaultPaths.METRICS

    @model_validator(mode="after")
    def _count_suits_kind(self) -> Self:
        if self.count is not None and self.kind not in _PER_REQUEST:
            raise ValueError(f"count suits {', '.join(_PER_REQUEST)}, not {self.kind}")
        return self


NO_FAULT = Fault(kind=FaultKind.NONE)
