"""How fast a pool works, learned from its answers: what turns work into seconds.

Source of the rules and constants: simulations of model servers with chunked prefill, where a step of .3 was
13 % worse.
"""

from typing import Final

from controller.picker.chunks import BYTES_PER_TOKEN

STEP: Final = 0.1
"""How far an answer moves what it tells about."""
SLOW_STEP: Final = 0.05
SHARE_STEP: Final = 0.02
IDLE_TOKENS: Final = 128
"""Tokens before the first byte, below which an answer tells the time without work."""
HALF_TRUST: Final = 500
"""Tokens before the first byte, at which an answer counts half."""
LARGEST_ERROR: Final = 0.5
SLOWEST: Final = 4.0
"""Greatest and, inverted, least relative slowness of an endpoint."""
DECAY: Final = 0.998
"""Exponent that draws slowness towards 1 with each answer, so that what is common to all becomes the pool's rate."""
LONGEST_LOAD: Final = 3.0
"""Seconds; what takes longer than that was no adapter."""
LEAST_SECONDS: Final = 0.001
"""What NGINX measures in; from zero nothing that grows by factors comes back."""
TOKEN_BOUNDS: Final = (1e-6, 0.1)
"""Seconds per token: beyond what any server does, so that no run of odd answers makes the rule blind."""


class Rates:
    """What is learned of one pool."""

    __slots__ = (
        "adapter_load",
        "common_error",
        "first_byte",
        "matched_share",
        "pods",
        "residence",
        "seconds_per_token",
    )

    def __init__(self) -> None:
        self.seconds_per_token = 0.0002
        """Per token that is not cached."""
        self.first_byte = 0.03
        """Seconds until the first byte where nothing has to be computed."""
        self.common_error: float | None = None
        """Mean share by which first bytes of all endpoints came late; None before the first."""
        self.residence = 1.0
        """Mean seconds from sending to the last byte."""
        self.adapter_load = 0.3
        """Seconds to load a LoRA adapter."""
        self.matched_share = 1.0
        """Mean share of a prompt that some endpoint had."""
        self.pods = 1
        """Endpoints of the pool: each answer tells about one of them."""

    def expected(self, ahead: int, slowness: float) -> float:
        """Seconds until the first byte of a request with so many bytes to be computed before it, its own included."""
        return self.first_byte + ahead / BYTES_PER_TOKEN * self.seconds_per_token * slowness

    def sent(self, *, matched: int, chunks: int) -> None:
        """A prompt was sent, of whose chunks its endpoint had some."""
        if chunks:
            self.matched_share += SHARE_STEP * (matched / chunks - self.matched_share)

    def ended(self, residence: float) -> None:
        """A request was answered to its end."""
        self.residence = max(self.residence + SLOW_STEP * (residence - self.residence), LEAST_SECONDS)

    def answered(self, waited: float, *, ahead: int, slowness: float, loaded: bool) -> float:
        """Learn from a first byte. `ahead` as in `expected`; `loaded`: an adapter had to be loaded.

        Returns the slowness of the endpoint after it.
        """
        expected = self.expected(ahead, slowness)
        if loaded:
            took = min(max(waited - expected, 0.0), LONGEST_LOAD)
            self.adapter_load += STEP * (took - self.adapter_load)
            return slowness
        tokens = ahead / BYTES_PER_TOKEN
        if tokens < IDLE_TOKENS:
            moved = self.first_byte + SLOW_STEP * (min(waited, 2 * self.first_byte) - self.first_byte)
            self.first_byte = max(moved, LEAST_SECONDS)
            return slowness
        error = min(max(waited / expected - 1, -LARGEST_ERROR), LARGEST_ERROR)
        step = STEP * tokens / (tokens + HALF_TRUST)
        common = error if self.common_error is None else self.common_error + STEP * (error - self.common_error)
        self.common_error = common
        low, high = TOKEN_BOUNDS
        self.seconds_per_token = min(max(self.seconds_per_token * (1 + step * error / self.pods), low), high)
        # What is late everywhere says nothing about this one: else the first to be asked would seem ever faster.
        return float(min(max(slowness * (1 + step * (error - common)), 1 / SLOWEST), SLOWEST) ** DECAY)
