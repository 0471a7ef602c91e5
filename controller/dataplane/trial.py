"""A data plane that serves nothing: it asks nginx whether it would take a bundle."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from controller.agent import releases
from controller.agent.nginx import Nginx, check
from controller.agent.state import State, locked
from controller.bundle import Bundle
from controller.dataplane.base import Report
from controller.pools import Pools

_TAKEN = re.compile(r"\bbind\(\) to .* failed")


class TrialDataPlane:
    """Tests each bundle with `nginx -t` in a directory that is gone afterwards. Without nginx it takes everything."""

    def __init__(self, nginx: Nginx | None) -> None:
        self._nginx = nginx

    async def __aenter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="infergate-")
        self._lock = locked(Path(self._directory.name))
        self._state: State = self._lock.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)
        self._directory.cleanup()

    @property
    def reload_pause(self) -> float:
        """See `DataPlane`; nothing is running."""
        return 0.0

    async def apply(self, bundle: Bundle) -> Report:
        """Serving means that nginx takes the files.

        Whether ports can be opened is not judged: they may be in use by the gateway itself, or on another machine.
        """
        refusal = None
        if self._nginx is not None:
            release = releases.write(self._state, bundle)
            refusal = await check(self._nginx, self._state, f"{release.path}/nginx.conf")
            if refusal is not None and _TAKEN.search(refusal.message):
                refusal = None
        return Report(bundle.gateway, bundle.version, serving=refusal is None, refusal=refusal, seconds=0.0)

    async def apply_pools(self, pools: Pools) -> None:
        """Nothing is asked of a picker."""
