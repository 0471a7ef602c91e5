"""Settings of the picker process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ADDRESS: Final = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):\d{1,5}$"
_ADDRESS_OR_PORT: Final = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)?:\d{1,5}$"


class PoolOfCluster(BaseModel):
    """The pool whose endpoints are found in a cluster: an InferencePool, or pods by their labels."""

    model_config = ConfigDict(frozen=True)

    name: str
    namespace: str
    group: str = "inference.networking.k8s.io"
    """Of the InferencePool."""
    selector: Annotated[Mapping[str, str], Field(min_length=1)] | None = None
    """Labels of the pods, instead of an InferencePool's."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(default=(), max_length=8)
    """On which pods of the selector serve, each an endpoint of its own."""
    kubeconfig: Path | None = None
    """None: the service account of the pod that the picker runs in."""
    policy: Path | None = None
    """PickerPolicy or EndpointPickerConfig in the place of what the cluster says."""

    @model_validator(mode="after")
    def _selector_has_ports(self) -> Self:
        if (self.selector is None) != (not self.ports):
            raise ValueError("--endpoint-selector and --endpoint-target-ports go together")
        if len(set(self.ports)) < len(self.ports):
            raise ValueError("--endpoint-target-ports: a port is named twice")
        return self


class ExtProcSettings(BaseModel):
    """How the picker serves gateways that speak ext_proc."""

    model_config = ConfigDict(frozen=True)

    address: str = Field(pattern=_ADDRESS_OR_PORT)
    """`host:port`, or `:port` for all addresses of the machine."""
    health_address: str | None = Field(default=None, pattern=_ADDRESS_OR_PORT)
    """Where gRPC health answers as well, without TLS; None: on `address` alone."""
    tls: bool = True
    certificates: Path | None = None
    """Directory with `tls.crt` and `tls.key`, read again when they change; None: a certificate made at the start."""
    pool: str = ""
    """`namespace/name` of the pool that is served; empty for the only one of the pools file."""
    cluster: PoolOfCluster | None = None
    drain: float = Field(default=30.0, ge=0.0, le=3600.0)
    """Seconds after a signal in which everything is served while health says that it ends."""
    body_memory: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of request bodies in hand; the protocol has the picker send each body back once it has the whole."""


class PickerSettings(BaseModel):
    """What the command line says; checked before anything starts."""

    model_config = ConfigDict(frozen=True)

    socket: Path | None = None
    """Unix socket on which NGINX asks, and on which the admin routes answer too; None where no NGINX asks."""
    pools: Path | None = None
    """The pools file, followed; None where the pool is found in a cluster."""
    completions: Path | None = None
    """The file to which NGINX appends what became of requests, followed; None as for the socket."""
    ext_proc: ExtProcSettings | None = None
    """How gateways are served that speak ext_proc; None serves none."""
    metrics_address: str | None = Field(default=None, pattern=ADDRESS)
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
    """Seconds for which it goes on at most, and for which streams of ext_proc may go on."""

    @model_validator(mode="after")
    def _somebody_asks(self) -> Self:
        """NGINX, or a gateway that speaks ext_proc; and there is one place that names the endpoints."""
        if self.ext_proc is None:
            if None in (self.socket, self.pools, self.completions):
                raise ValueError("--socket, --pools and --completions are required without --ext-proc and --replay")
            return self
        if (self.socket is None) != (self.completions is None):
            raise ValueError("--socket and --completions go together")
        if (self.pools is None) == (self.ext_proc.cluster is None):
            raise ValueError("--ext-proc needs either --pools, or --pool-name, or --endpoint-selector")
        return self

    @model_validator(mode="after")
    def _readings_outlive_the_interval(self) -> Self:
        """Above it, every reading would be stale before the next one could come."""
        if self.scrape_interval > self.staleness:
            raise ValueError(
                f"scrape interval {self.scrape_interval:g} s: above the staleness limit {self.staleness:g} s"
            )
        return self
