"""Settings of the agent."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class AgentSettings(BaseModel):
    """What the command line says; checked before anything starts."""

    model_config = ConfigDict(frozen=True)

    server: str = Field(pattern=r"^https://[^/\s?#@]+$")
    """`https://HOST:PORT` of the control plane. Reports go to every address that the host has."""
    gateway: str = Field(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")
    """`namespace/name` of the Gateway that is served."""
    token_file: Path
    """Token of this instance; read anew for each request."""
    ca_file: Path
    """Certificates of the control plane's authority, the only ones trusted; read anew for each request."""
    state: Path
    """Directory for releases and sockets, shared with the picker."""
    nginx: str | None = None
    """Path of the nginx binary; None: as `agent.nginx.find` says."""
    probes: str = Field(default="8081", pattern=r"^((\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):)?\d{1,5}$")
    """`port` on every address, or `host:port`, for `/readyz`, `/healthz` and `/metrics`."""
    drain_delay: float = Field(default=5.0, ge=0.0, le=300.0)
    """Seconds from SIGTERM for which connections are still taken, until load balancers know."""
    grace: float = Field(default=20.0, ge=0.0, le=86400.0)
    """Seconds after that in which requests in hand may end."""
