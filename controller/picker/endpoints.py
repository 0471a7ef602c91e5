"""What is known of one endpoint: its last reading, what is in flight to it, and whether it fails.

Plain attributes, changed by the scrape and the completions, read by filters and scorers some hundred thousand times a
second: what can be computed once per scrape is.
"""

import math
from enum import StrEnum

import msgspec

from controller.picker.health import Health
from controller.picker.memory import PoolMemory
from controller.picker.model_servers import Reading
from controller.picker.prefix import PrefixIndex
from controller.picker.request_counts import RequestCounts
from controller.picker.served import ServedModel
from controller.pools import Engine, PoolEndpoint

MOST_ADAPTERS = 64
"""LoRA adapters remembered of an endpoint that does not say how many it holds."""
ALIKE_FROM = 0.87
"""Slowness above which, and below its inverse, endpoints are alike. Equal ones differ so much by chance, and by who was
asked first; without this one of them got every request of a client that asks one after the other."""
ALIKE_TO = 1 / ALIKE_FROM
KV_NEARLY_FULL = 0.9
"""Share of the KV cache above which requests begin to wait for blocks; vLLM preempts from about here."""


class Metrics(StrEnum):
    """What asking an endpoint for its metrics gave last."""

    UNREAD = "unread"
    """Not asked yet, or never answered."""
    READ = "read"
    MISSING = "missing"
    """It answers that it has none."""
    UNKNOWN = "unknown"
    """It answers a page on which no known program speaks, or one that cannot be parsed."""
    UNREACHABLE = "unreachable"
    """It did not answer the last time."""


class Sent(msgspec.Struct, gc=False, eq=False):
    """A request in flight."""

    endpoint: "Endpoint"
    at: float
    """When it was sent."""
    memory: PoolMemory
    """Of the pool it was picked from."""
    is_pending: bool = True
    """Whether its bytes are in the endpoint's backlog."""
    size: int = 0
    """Bytes of its prompt that the endpoint did not have."""
    ahead: int = 0
    """Backlog when it was sent, its own bytes included."""
    prompt_bytes: int = 0
    matched_bytes: int = 0
    """Bytes of the prompt that the endpoint had."""
    adapter: str = ""
    model: str = ""
    """As the client names it, where the answer's usage is read."""
    is_loading: bool = False
    """Whether its adapter has to be loaded first."""
    is_streamed: bool = False
    waited: float | None = None
    """Seconds to the first byte; None before it."""
    due: int = 0
    """Step of the clock in which its bytes leave the backlog, see `Due`; 0: the first byte takes them out."""
    is_overdue: bool = False
    """Whether its first byte was missed."""
    fallbacks: tuple["Endpoint", ...] = ()
    """Where it goes when this endpoint fails, in order."""
    worker: int = 0
    """Of NGINX, see `Workers`; 0 where that is not known."""
    counts: RequestCounts | None = None
    """Where its end counts; None where nobody counts it."""
    queued: float = 0.0
    """Seconds that it waited to be picked for."""


class Endpoint:
    """One endpoint with all that the picker knows of it. Lives as long as its pod, whatever happens to its pools."""

    __slots__ = (
        "__weakref__",
        "adapters",
        "adapters_in_use",
        "address",
        "answered_at",
        "backlog",
        "byte_time",
        "engine",
        "first_byte_time",
        "foreign",
        "health",
        "heard_at",
        "is_ordinary",
        "is_strained",
        "key",
        "kv_pressure",
        "labels",
        "list_is_doubted",
        "max_adapters",
        "metrics",
        "models",
        "most_running",
        "name",
        "open",
        "own_at_reading",
        "pace",
        "patience",
        "picks",
        "prefixes",
        "prompt_tokens",
        "reading",
        "reported",
        "restarts",
        "retired",
        "scrape_failures",
        "scrape_failures_in_a_row",
        "scrape_interval",
        "slots",
        "slowness",
        "stalled_since",
        "started_at",
        "tokens",
        "uid",
        "waiting",
    )

    def __init__(self, source: PoolEndpoint) -> None:
        self.key = key_of(source)
        self.address, self.name, self.uid = self.key
        self.labels = source.labels
        self.engine: Engine | None = source.engine
        self.open: dict[str, Sent] = {}
        """The requests in flight by id, oldest first."""
        self.backlog = 0
        """Bytes of prompts that are not cached, of requests in flight whose first byte was not seen."""
        self.tokens = 0
        """Estimated tokens of the prompts in flight."""
        self.picks = 0
        """Times it was picked."""
        self.slowness = 1.0
        """Seconds per token, relative to the pool's."""
        self.pace = 1.0
        """Its slowness, or 1 where it is alike the others."""
        self.is_ordinary = True
        """Whether nothing but what is in flight tells it from others: it is as fast as they are, no limit of its slots
        is known, and nobody else sends requests there."""
        self.slots = math.inf
        """Requests that it runs at once; infinite while none was seen to wait."""
        self.most_running = 0
        self.max_adapters = MOST_ADAPTERS
        """LoRA adapters that it holds at once."""
        self.adapters: dict[str, None] = {}
        """LoRA adapters that it was sent requests for and can still hold, least recently used first."""
        self.adapters_in_use: dict[str, int] = {}
        """Requests in flight by LoRA adapter."""
        self.models: tuple[ServedModel, ...] = ()
        """That it lists, sorted by name."""
        self.list_is_doubted = False
        """Whether a request or a reading named a model that it does not list, and may have loaded since."""
        self.prefixes = PrefixIndex()
        self.first_byte_time: float | None = None
        """Seconds to the first byte of streamed answers, lately; None before there was one."""
        self.byte_time: float | None = None
        """Seconds per byte of streamed answers after the first; as above."""
        self.started_at: float | None = None
        """When its process started, on its own clock, as it said last."""
        self.prompt_tokens = 0.0
        """Its own counter, as it said last."""
        self.restarts = 0
        self.health = Health()
        self.heard_at = -math.inf
        """When one of its answers began or ended well."""
        self.metrics = Metrics.UNREAD
        self.reported: Metrics | None = None
        """Why there is no reading, as logged; so that it is logged once."""
        self.reading: Reading | None = None
        self.answered_at = -math.inf
        """When it last answered a scrape, with a reading or by saying that there is none."""
        self.waiting = 0
        """As in the reading, 0 without one."""
        self.foreign = 0
        """Requests in the reading that this picker did not send."""
        self.own_at_reading = 0
        self.kv_pressure = 0.0
        """How close the KV cache is to full: 0 up to `KV_NEARLY_FULL`, 1 when full."""
        self.is_strained = False
        """Whether requests wait there, or soon will: the wait is more than the number of requests."""
        self.stalled_since: float | None = None
        """From when on its readings tell of requests and of no more tokens; None while it works or says nothing."""
        self.scrape_failures = 0
        self.scrape_failures_in_a_row = 0
        self.retired = False
        """No longer in any pool; kept while requests are in flight to it."""
        self.scrape_interval = 1.0
        """Seconds between two scrapes: the least that one of its pools asks for."""
        self.patience = 0.0
        """Seconds without a first byte that say nothing in any of its pools."""

    def renew(self, source: PoolEndpoint) -> None:
        """Take over what may change while it stays the same pod."""
        self.labels = source.labels
        self.engine = source.engine
        self.retired = False

    def read(self, reading: Reading, *, own: int, now: float) -> None:
        """Take a reading. `own` is how many of its requests are this picker's."""
        self._watch_progress(reading)
        self._answered(Metrics.READ, now=now)
        self._follow_restart(reading)
        self._doubt_list(reading)
        self.reported = None
        self.reading = reading
        if reading.running >= self.most_running:
            self.most_running = reading.running
            self.slots = max(1, reading.running) if reading.waiting > 0 else math.inf
        if reading.max_adapters is not None:
            self.max_adapters = reading.max_adapters
        for adapter in reading.running_adapters:
            if adapter not in self.adapters and len(self.adapters) < self.max_adapters:
                self.adapters[adapter] = None
        self.waiting = reading.waiting
        self.own_at_reading = own
        self.foreign = max(0, reading.running + reading.waiting - own)
        self._judge()
        kv_use = reading.kv_use or 0.0
        self.kv_pressure = max(0.0, (kv_use - KV_NEARLY_FULL) / (1.0 - KV_NEARLY_FULL))
        self.is_strained = self.waiting > 0 or self.kv_pressure > 0

    def read_nothing(self, metrics: Metrics, *, now: float) -> None:
        """It answered without a reading: it is judged by what is in flight alone."""
        self._answered(metrics, now=now)
        self.reading = None
        self.stalled_since = None
        self.waiting = self.foreign = self.own_at_reading = 0
        self._judge()
        self.kv_pressure = 0.0
        self.is_strained = False

    def worked(self, slowness: float) -> None:
        """It was seen to take so long for a token, relative to the pool's."""
        self.slowness = slowness
        self.pace = 1.0 if ALIKE_FROM < slowness < ALIKE_TO else slowness
        self._judge()

    def use_adapter(self, adapter: str) -> None:
        """A request for a LoRA adapter is sent there: it holds it, and no longer the one that it displaces."""
        self.adapters.pop(adapter, None)
        self.adapters[adapter] = None
        while len(self.adapters) > self.max_adapters:
            del self.adapters[next(iter(self.adapters))]

    def miss(self) -> None:
        """It did not answer a scrape. The last reading stays, and ages."""
        self.stalled_since = None
        self.metrics = Metrics.UNREACHABLE
        self.scrape_failures += 1
        self.scrape_failures_in_a_row += 1

    def _judge(self) -> None:
        self.is_ordinary = self.pace == 1.0 and not self.foreign and self.slots == math.inf

    def _watch_progress(self, reading: Reading) -> None:
        """Compare with the last reading, before it is replaced."""
        last = self.reading
        is_busy = reading.generated_tokens is not None and reading.running + reading.waiting > 0
        stands_still = (
            is_busy
            and last is not None
            and (last.generated_tokens, last.prompt_tokens) == (reading.generated_tokens, reading.prompt_tokens)
        )
        if not stands_still:
            self.stalled_since = None
        elif self.stalled_since is None:
            self.stalled_since = self.answered_at

    def _doubt_list(self, reading: Reading) -> None:
        """Compare with the last reading, before it is replaced: an adapter that came, not listed, was loaded since.

        One that stays in use is not asked for again: some servers list no adapters.
        """
        last = self.reading
        before = (*last.running_adapters, *last.waiting_adapters) if last is not None else ()
        came = {*reading.running_adapters, *reading.waiting_adapters}.difference(before)
        if came and not came.issubset(model.id for model in self.models):
            self.list_is_doubted = True

    def _follow_restart(self, reading: Reading) -> None:
        """A process that started later, or whose counters fell, has an empty cache and no adapters."""
        started, counted = reading.started_at, reading.prompt_tokens
        is_later = started is not None and self.started_at is not None and started != self.started_at
        if is_later or (counted is not None and counted < self.prompt_tokens):
            self.restarts += 1
            self.prefixes.clear()
            self.adapters.clear()
            self.most_running = 0
            self.slots = math.inf
        if counted is not None:
            self.prompt_tokens = counted
        if started is not None:
            self.started_at = started

    def _answered(self, metrics: Metrics, *, now: float) -> None:
        self.metrics = metrics
        self.answered_at = now
        self.scrape_failures_in_a_row = 0


def key_of(source: PoolEndpoint) -> tuple[str, str, str]:
    """What makes an endpoint the same: address, name and uid of its pod."""
    return (source.address, source.name, source.uid)
