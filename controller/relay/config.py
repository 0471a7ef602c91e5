"""Settings of the relay process."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class RelaySettings(BaseModel):
    """What the command line says; checked before anything starts."""

    model_config = ConfigDict(frozen=True)

    socket: Path
    """Unix socket on which NGINX sends requests."""
    pools: Path
    """The pools file, followed."""
    spill: Path | None = None
    """Directory for bodies that do not stay in memory; None: where the system keeps temporary files."""
    connect_timeout: float = Field(default=1.0, gt=0.0, le=60.0)
    """Seconds to connect to a picker."""
    answer_timeout: float = Field(default=90.0, gt=0.0, le=3600.0)
    """Seconds for what a picker owes; longer than a wait in its queue, which is no failure."""
    silence: float = Field(default=2.0, gt=0.0, le=600.0)
    """Seconds without a byte from a picker that has requests, after which it is asked whether it lives."""
    memory: int = Field(default=96 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of bodies in memory; what is more goes to files."""
