"""When an endpoint that fails is avoided, and how it comes back.

A failing endpoint pauses. After the pause one request is let through to probe it: success ends the pauses, failure
doubles the next one, and so does silence for as long as the pause. Only what NGINX tells of requests counts here; the
age of readings is the filter's concern.
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
ANSWERS: Final = 20
"""The last answers of which a share is taken."""
ERRORS_OF_THEM: Final = 10
"""Errors among them before a pause: an endpoint that fails every second request is found too."""
_WINDOW: Final = (1 << ANSWERS) - 1


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
    OVERDUE = "overdue"
    """No first byte, or no token of any request, came for much longer than expected. It may still be under way."""


class Health:
    """Failures of one endpoint and the pauses they cause."""

    __slots__ = ("errors", "failing_since", "failures", "pause", "paused_until", "probe", "recent")

    def __init__(self) -> None:
        self.failures: Counter[Failure] = Counter()
        """Since the endpoint is known."""
        self.errors = 0
        """Answers of `Failure.ERROR` since the last success."""
        self.recent = 0
        """One bit for each of the last answers, set for `Failure.ERROR`."""
        self.pause = 0.0
        """Seconds of the current pause; 0 while healthy."""
        self.paused_until = -math.inf
        self.failing_since = -math.inf
        self.probe = ""
        """Id of the request that was let through last."""

    def may_serve(self, now: float) -> bool:
        """Whether it is healthy, or due to be probed."""
        return not self.pause or now >= self.paused_until

    def picked(self, request: str, *, now: float, is_unanswered: bool = False) -> None:
        """A request was sent there. It is the probe when a pause has passed, and the next may follow a pause later.

        `is_unanswered` says that the probe before it is under way.
        """
        if self.pause and now >= self.paused_until:
            if is_unanswered:
                # Where failures take longer than pauses, each would come when its probe is not the last any more.
                self.pause = min(self.pause * 2, LONGEST_PAUSE)
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
            self.recent = (self.recent << 1 | 1) & _WINDOW
            if not self._has_errors:
                return
        self._begin_pause(FIRST_PAUSE, since=now, now=now)

    def missed(self, *, request: str, sent_at: float, now: float) -> None:
        """A request is overdue. Its probes would hang as long, so the pause is long from the start."""
        if self.pause:
            self.failed(Failure.OVERDUE, request=request, now=now)
            return
        self.failures[Failure.OVERDUE] += 1
        # Its answer, should it come, ends the trouble.
        self._begin_pause(LONGEST_PAUSE, since=sent_at, now=now)

    def succeeded(self, *, sent_at: float) -> None:
        """A request was served. One sent before the trouble began proves nothing."""
        if sent_at >= self.failing_since:
            self.errors = 0
            self.recent = 0 if self.pause else self.recent << 1 & _WINDOW
            self.pause = 0.0
            self.probe = ""

    def refused(self, *, sent_at: float) -> None:
        """A request was answered with its client's mistake: the endpoint is there, and may work or not."""
        if sent_at >= self.failing_since and not self._has_errors:
            self.pause = 0.0
            self.probe = ""

    @property
    def _has_errors(self) -> bool:
        return self.errors >= ERRORS_IN_A_ROW or self.recent.bit_count() >= ERRORS_OF_THEM

    def _begin_pause(self, pause: float, *, since: float, now: float) -> None:
        self.pause = pause
        self.failing_since = since
        self.paused_until = now + pause
