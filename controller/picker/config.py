"""Settings of the picker process."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PickerSettings(BaseModel):
    """What the command line says; checked before anything starts."""

    model_config = ConfigDict(frozen=True)

    socket: Path
    """Unix socket on which NGINX asks, and on which the admin routes answer too."""
    pools: Path
    """The pools file, followed."""
    completions: Path
    """The file to which NGINX appends what became of requests, followed."""
    metrics_address: str | None = Field(default=None, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):\d{1,5}$")
    """`host:port` on which the admin routes answer over TCP as well; None opens no port."""
    scrape_interval: float = Field(default=1.0, ge=0.05, le=60.0)
    """Seconds between two scrapes of one endpoint."""
    staleness: float = Field(default=3.0, le=600.0)
    """Seconds after which a reading is too old to prefer its endpoint."""
    record: Path | None = None
    """File into which a trace is written; None records nothing."""
    record_limit: int = Field(default=100_000_000, ge=10_000)
    """Bytes of the trace, at which it ends: some 50,000 requests with prompts of 4,000 tokens."""
    replicas: bool = False
    """Whether other pickers, of other replicas of the gateway, send requests to the same endpoints."""

    outlive: Path | None = None
    """After a signal the picker goes on until nobody holds a lock on this file; None: it ends at once."""
    grace: float = Field(default=60.0, ge=0.0, le=86400.0)
    """Seconds for which it goes on at most."""

    @model_validator(mode="after")
    def _readings_outlive_the_interval(self) -> Self:
        """Above it, every reading would be stale before the next one could come."""
        if self.scrape_interval > self.staleness:
            raise ValueError(
                f"scrape interval {self.scrape_interval:g} s: above the staleness limit {self.staleness:g} s"
            )
        return self
