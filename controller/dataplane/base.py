"""Where bundles go: one data plane instance as the control plane sees it."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from controller.bundle import Bundle
from controller.errors import NginxRefused
from controller.pools import Pools


@dataclass(frozen=True)
class Report:
    """What one data plane instance says of one version."""

    gateway: str
    """As in the bundle."""
    version: str
    """The version that was asked for."""
    serving: bool
    """Whether a worker of nginx answers for that version."""
    refusal: NginxRefused | None
    """Why it is not served; what was served before still is."""
    seconds: float
    """From the call until the answer."""


class DataPlane(Protocol):
    """An nginx with its picker, somewhere. Runs between the begin and the end of its context."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @property
    def reload_pause(self) -> float:
        """Seconds for which the next version had better wait; 0 when it need not.

        Workers that still have streams outlive a reload. Without a bound a change each second gathers hundreds of them.
        """
        ...

    async def apply(self, bundle: Bundle) -> Report:
        """Serve a bundle, its pools included. Calls take effect in their order, one at a time.

        Raises one of our exceptions when the data plane itself is in trouble; a configuration that nginx refuses is a
        report.
        """
        ...

    async def apply_pools(self, pools: Pools) -> None:
        """Make endpoints known to the picker, without a reload."""
        ...
