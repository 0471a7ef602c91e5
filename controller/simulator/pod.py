"""One pod: its engine, moved by the event loop's clock, its fault, and the requests that arrived."""

import asyncio
import itertools
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from controller.simulator.arrivals import arrivals
from controller.simulator.engine import Engine, Sequence, State
from controller.simulator.faults import NO_FAULT, Fault, FaultKind, FaultPaths
from controller.simulator.series import AdapterSets, Load, exposition
from controller.simulator.settings import PodSettings
from controller.simulator.tokens import TOKEN_BYTES, answer_to, block_hashes, ended_at, word_stream

_TIMER_SECONDS = 0.001
"""uvloop's timers are whole milliseconds: a step due within one is taken at once, or it would come late."""
_FORGIVEN_SECONDS = 1.0
"""A loop that was blocked for longer (a suspended machine) does not make up for it in a burst of steps."""


@dataclass(slots=True, eq=False)
class Generation(Sequence):
    """A sequence that somebody waits for."""

    wakes_per_token: bool = False
    is_first: bool = True
    """Of the answers to its prompt."""
    shown: int = 0
    """Bytes of the answer that clients see: a stop string at its end is left out."""
    stop_reason: str | None = None
    """The stop string that ended the answer."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> bytes:
        """The answer as clients see it."""
        return self.answer[: self.shown]

    def piece(self, token: int) -> bytes:
        """What clients see of one token."""
        return self.answer[token * TOKEN_BYTES : min((token + 1) * TOKEN_BYTES, self.shown)]

    @property
    def is_over(self) -> bool:
        return self.state in (State.FINISHED, State.ABORTED)


class Pod:
    """Belongs to the event loop that runs when it is made."""

    def __init__(self, settings: PodSettings) -> None:
        self.settings = settings
        self.fault = NO_FAULT
        self.arrivals = arrivals()
        self.created = int(time.time())
        """Unix time at which it started, in seconds."""
        self._loop = asyncio.get_running_loop()
        self._stream = word_stream(settings.seed)
        self._identifiers = itertools.count(1)
        self._struck = 0
        self._recovered = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._engine: Engine[Generation] = Engine(settings)
        self._adapter_sets = AdapterSets()
        self.adapters = list(settings.adapters)
        """Those that requests may ask for. They come and go while it runs."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names that a request may ask for, the base model first."""
        return (self.settings.model, *self.adapters)

    @property
    def is_alive(self) -> bool:
        return self.fault.kind is not FaultKind.DIE

    def identifier(self) -> str:
        """Unique among the answers of this pod since it started."""
        return f"{self.settings.name}-{next(self._identifiers)}"

    def generation(
        self,
        prompt: bytes,
        *,
        model: str,
        tokens: int,
        stops: bool = False,
        seed: int | None = None,
        salt: str = "",
        streamed: bool = False,
        number: int = 0,
        stop: Collection[str] = (),
    ) -> Generation:
        """A sequence to submit. `salt` keeps its blocks apart from equal text with another salt.

        `number` is that of the answer among those to one prompt. The first text of `stop` in it ends it.
        """
        seed = (self.settings.seed if seed is None else seed) + number
        answer = answer_to(prompt, seed=seed, tokens=tokens, stream=self._stream)
        end = ended_at(answer, stop)
        if end is not None:
            answer, stops = answer[: end.tokens * TOKEN_BYTES], True
        hashes = block_hashes(prompt + answer, root=f"{model}\n{salt}", block_size=self.settings.block_size)
        adapter = model if model != self.settings.model else None
        return Generation(
            prompt,
            answer,
            hashes,
            adapter=adapter,
            stops=stops,
            wakes_per_token=streamed,
            is_first=number == 0,
            shown=len(answer) if end is None else end.shown,
            stop_reason=None if end is None else end.text,
        )

    def submit(self, generation: Generation) -> None:
        was_idle = self._engine.next_at is None
        self._engine.submit(generation, now=self._loop.time())
        if was_idle and not self.fault.stops_the_engine:
            # Not at once: what arrives in the same turn of the loop shares the first step.
            self._arm(0.0)

    def abort(self, generation: Generation) -> None:
        """Free what a sequence holds at once and wake who waits for it."""
        self._engine.abort(generation)
        generation.progress.set()

    def set_fault(self, fault: Fault) -> None:
        """Have another fault, or none. A pod that dies, or comes back, has an empty cache and counts from zero."""
        was_alive = self.is_alive
        self.fault = fault
        self._struck = 0
        self._recovered.set()
        self._recovered = asyncio.Event()
        if was_alive != self.is_alive:
            self._start_over()
        self._engine.slowdown = fault.factor if fault.kind is FaultKind.SLOW else 1.0
        self._disarm()
        if not fault.stops_the_engine and self._engine.next_at is not None:
            self._arm(0.0)

    def strike(self, path: FaultPaths | None) -> Fault:
        """The fault that one arriving request meets; counts it. None: a path that only `all` strikes."""
        fault = self.fault
        if fault.kind is FaultKind.NONE or fault.paths not in (FaultPaths.ALL, path):
            return NO_FAULT
        self._struck += 1
        if fault.count is not None and self._struck >= fault.count:
            self.fault = NO_FAULT
        return fault

    async def wait_until_recovered(self) -> None:
        """Until the next `set_fault`."""
        await self._recovered.wait()

    def metrics(self) -> bytes:
        settings, engine = self.settings, self._engine
        load = Load(
            running=len(engine.running),
            waiting=len(engine.waiting),
            kv_usage=engine.kv_usage,
            running_adapters=_adapters_of(engine.running),
            waiting_adapters=_adapters_of(engine.waiting),
        )
        if self.adapters:
            self._adapter_sets.see(load, now=time.time())
        return exposition(
            load,
            engine.totals,
            model=settings.model,
            blocks=settings.blocks,
            block_size=settings.block_size,
            adapter_slots=settings.max_adapters,
            adapter_sets=self._adapter_sets if self.adapters else None,
        )

    def stop(self) -> None:
        """Abort everything; nothing runs afterwards."""
        self._start_over()
        self._recovered.set()

    def _start_over(self) -> None:
        self._disarm()
        for generation in (*self._engine.running, *self._engine.waiting):
            self.abort(generation)
        self._engine = Engine(self.settings)
        self._adapter_sets = AdapterSets()

    def _arm(self, delay: float) -> None:
        self._timer = self._loop.call_later(delay, self._run_steps)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run_steps(self) -> None:
        """Take every step that is due, each at the time at which it was due, so that lateness does not add up."""
        self._timer = None
        now = self._loop.time()
        due = self._engine.next_at
        if due is not None and due < now - _FORGIVEN_SECONDS:
            due = now
        while due is not None and due <= now + _TIMER_SECONDS:
            for generation in self._engine.step(due):
                if generation.wakes_per_token or generation.is_over:
                    generation.progress.set()
            due = self._engine.next_at
        if due is not None:
            self._arm(due - now)


def _adapters_of(sequences: tuple[Generation, ...]) -> tuple[str, ...]:
    return tuple(sorted({sequence.adapter for sequence in sequences if sequence.adapter is not None}))
