"""When an endpoint that fails is avoided, and how it comes back.

A failing endpoint pauses. After the pause one request is let through to probe it: success ends the pauses, failure
doubles the next one. Only what NGINX tells of requests counts here; the age of readings is the filter's concern.
"""

import math
from collections import Counter
from enum import StrEnum
from typing import Final

FIRST_PAUSE: Final = 1.0
"""Seconds; about what a process needs to come back."""
LONGEST_PAUSE: Final = 30.0
"""Seconds; a pod that is back waits no longer than this."""
ERRORS_IN_A_ROW: Final = 3
"""Answers with an error before a pause: a request that breaks an engine must not take out one pod after another."""


class Failure(StrEnum):
    """How a request failed at an endpoint."""

    UNREACHABLE = "unreachable"
    """No connection: the request never got there."""
    CLOSED = "closed"
    """The connection ended before an answer."""
    TIMEOUT = "timeout"
    """No answer in time; the endpoint may still work on it."""
    UNAVAILABLE = "unavailable"
    """It answered 502, 503 or 504."""
    ERROR = "error"
    """It answered another status of 500 or above."""


class Health:
    """Failures of one endpoint and the pauses they cause."""

    __slots__ = ("errors", "failing_since", "failures", "pause", "paused_until", "probe")

    def __init__(self) -> None:
        self.failures: Counter[Failure] = Counter()
        """Since the endpoint is known."""
        self.errors = 0
        """Answers of `Failure.ERROR` since the last success."""
        self.pause = 0.0
        """Seconds of the current pause; 0 while healthy."""
        self.paused_until = -math.inf
        self.failing_since = -math.inf
        self.probe = ""
        """Id of the request that was let through last."""

    def may_serve(self, now: float) -> bool:
        """Whether it is healthy, or due to be probed."""
        return not self.pause or now >= self.paused_until

    def picked(self, request: str, *, now: float) -> None:
        """A request was sent there. It is the probe when a pause has passed, and the next may follow a pause later."""
        if self.pause and now >= self.paused_until:
            self.probe = request
            self.paused_until = now + self.pause

    def failed(self, failure: Failure, *, request: str, now: float) -> None:
        """Count a failure, and pause or lengthen the pause if it calls for that."""
        self.failures[failure] += 1
        if self.pause:
            # Requests that were under way together fail together: only the probe's failure is news.
            if request == self.probe:
                self.pause = min(self.pause * 2, LONGEST_PAUSE)
                self.paused_until = now + self.pause
            return
        if failure is Failure.ERROR:
            self.errors += 1
            if self.errors < ERRORS_IN_A_ROW:
                return
        self.pause = FIRST_PAUSE
        self.failing_since = now
        self.paused_until = now + self.pause

    def succeeded(self, *, sent_at: float) -> None:
        """A request was answered. One sent before the trouble began proves nothing."""
        if sent_at >= self.failing_since:
            self.errors = 0
            self.pause = 0.0
            self.probe = ""
