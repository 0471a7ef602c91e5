"""The API server's absence, told once by whoever notices first, and once when it is over."""

import logging
from collections.abc import Callable

from controller.errors import ApiError

log = logging.getLogger(__name__)


class Outage:
    """Shared by everything that asks one API server the same kind of things."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def began(self, problem: ApiError) -> None:
        if self._since is None:
            self._since = self._clock()
            log.warning("API server does not answer, the last resources stay", extra={"problem": str(problem)})

    def ended(self) -> None:
        if self._since is not None:
            log.info("API server answers again", extra={"seconds": round(self._clock() - self._since, 1)})
            self._since = None
