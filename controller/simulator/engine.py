"""The scheduler of a pod, in the manner of vLLM's, on a clock that its caller moves.

A step takes running sequences first, in order of arrival, then waiting ones while budget, slots, KV blocks and adapter
slots last. A sequence that has its prompt computed takes one token of the budget, others as much of their prompt as
fits. When a running sequence finds no block, the youngest one is preempted: it loses its blocks and waits again, in
front. At the end of a step each sequence whose tokens are all computed gets one token.

Not modelled: priorities, speculative decoding, attention that grows with length.
"""

import random
from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from controller.simulator.adapters import Adapters
from controller.simulator.blocks import Blocks, Holding
from controller.simulator.series import Histogram, Totals, length_bounds
from controller.simulator.settings import PodSettings
from controller.simulator.tokens import TOKEN_BYTES, count_tokens


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and the answer it is going to get. All but the first five fields belong to the engine."""

    prompt: bytes = field(repr=False)
    answer: bytes = field(repr=False)
    """Of four bytes per token; empty for a prompt that is only read, as for an embedding."""
    hashes: Items[int] = field(repr=False)
    """Of prompt and answer, see `tokens.block_hashes`."""
    adapter: str | None = None
    stops: bool = False
    """Whether the answer ends by itself rather than at a limit of the request."""

    state: State = State.WAITING
    prompt_tokens: int = field(init=False)
    answer_tokens: int = field(init=False)
    generated: int = 0
    computed: int = 0
    cached: int | None = None
    """Prompt tokens that were found in the cache; None until it ran."""
    arrived: float = 0.0
    ran_at: float = 0.0
    """When it was first part of a step."""
    first_at: float = 0.0
    """When its first token came."""
    token_at: float = 0.0
    holding: Holding = field(default_factory=Holding)

    def __post_init__(self) -> None:
        self.prompt_tokens = count_tokens(self.prompt)
        self.answer_tokens = count_tokens(self.answer)

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self.prompt_tokens + self.generated

    def full_blocks(self, computed: int, *, block_size: int) -> int:
        """How many blocks are full of text when so many tokens are computed: the prompt's last token may be short."""
        padding = self.prompt_tokens * TOKEN_BYTES - len(self.prompt)
        return max(0, computed * TOKEN_BYTES - padding) // (block_size * TOKEN_BYTES)


S = TypeVar("S", bound=Sequence)


class Engine(Generic[S]):
    """Times are seconds of any clock that does not go back."""

    def __init__(self, settings: PodSettings) -> None:
        lengths = length_bounds(settings.max_context)
        self.totals = Totals(prompt_lengths=Histogram(lengths), answer_lengths=Histogram(lengths))
        self.slowdown = 1.0
        """Multiplies the time of every step from the next one on."""
        self._settings = settings
        # Pods of one seed answer alike but do not step in time with each other.
        self._random = random.Random(f"{settings.seed}/{settings.name}")
        self._blocks = Blocks(settings.blocks)
        self._adapters = Adapters(settings.max_adapters)
        self._waiting: deque[S] = deque()
        self._running: list[S] = []
        self._batch: list[tuple[S, int]] = []
        self._next_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """When `step` is due; None if there is nothing to do."""
        return self._next_at

    @property
    def running(self) -> tuple[S, ...]:
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[S, ...]:
        return tuple(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of KV blocks that sequences hold, in [0, 1]."""
        return self._blocks.usage

    @property
    def loaded_adapters(self) -> tuple[str, ...]:
        return self._adapters.loaded

    def submit(self, sequence: S, *, now: float) -> None:
        sequence.arrived = now
        self._waiting.append(sequence)
        if self._next_at is None:
            self._next_at = now

    def abort(self, sequence: S) -> None:
        """Drop a sequence and free what it holds at once; nothing if it has ended."""
        if sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        elif sequence.state is State.RUNNING:
            self._running.remove(sequence)
            self._free(sequence)
        else:
            return
        sequence.state = State.ABORTED
        self.totals.ended["abort"] += 1

    def step(self, now: float) -> list[S]:
        """End the step that ran until `now` and begin the next one.

        Returns the sequences that advanced by a token or finished, in the order of the batch.
        """
        advanced = self._end_step(now)
        duration = self._begin_step(now)
        self._next_at = now + duration if self._batch else None
        return advanced

    def _end_step(self, now: float) -> list[S]:
        advanced = []
        for sequence, tokens in self._batch:
            if sequence.state is not State.RUNNING:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.length:
                self._advance(sequence, now)
                advanced.append(sequence)
        if any(sequence.state is State.FINISHED for sequence in advanced):
            self._running = [sequence for sequence in self._running if sequence.state is State.RUNNING]
        self._batch = []
        return advanced

    def _advance(self, sequence: S, now: float) -> None:
        totals = self.totals
        if sequence.generated == 0:
            totals.prompt_tokens += sequence.prompt_tokens
            totals.first_token.observe(now - sequence.arrived)
            sequence.first_at = now
        else:
            totals.between_tokens.observe(now - sequence.token_at)
        sequence.token_at = now
        if sequence.answer_tokens:
            sequence.generated += 1
            totals.generation_tokens += 1
        if sequence.generated == sequence.answer_tokens:
            sequence.state = State.FINISHED
            self._free(sequence)
            totals.ended["stop" if sequence.stops else "length"] += 1
            self._count_whole(sequence, now)

    def _count_whole(self, sequence: S, now: float) -> None:
        totals, generated = self.totals, sequence.generated
        totals.end_to_end.observe(now - sequence.arrived)
        totals.prefill.observe(sequence.first_at - sequence.ran_at)
        totals.decode.observe(now - sequence.first_at)
        totals.inference.observe(now - sequence.ran_at)
        totals.per_token.observe((now - sequence.first_at) / (generated - 1) if generated > 1 else 0.0)
        totals.prompt_lengths.observe(sequence.prompt_tokens)
        totals.answer_lengths.observe(generated)

    def _begin_step(self, now: float) -> float:
        """Fill the batch; returns the step's duration."""
        settings = self._settings
        budget, decoding, preempted = self._schedule_running(settings.step_tokens)
        # What was just preempted must not come back in the same step, nor may others take its blocks.
        unused, loads = (budget, 0) if preempted else self._schedule_waiting(budget, now)
        duration = (
            settings.step_time
            + settings.sequence_time * decoding
            + settings.token_time * (settings.step_tokens - unused - decoding)
            + settings.adapter_time * loads
        )
        noise = 1 + settings.noise * (2 * self._random.random() - 1)
        return duration * noise * self.slowdown / settings.speed

    def _schedule_running(self, budget: int) -> tuple[int, int, bool]:
        """Returns the budget left, the number of decoding sequences, and whether any was preempted."""
        running = self._running
        decoding = 0
        preempted = False
        position = 0
        while position < len(running) and budget > 0:
            sequence = running[position]
            tokens = min(sequence.length - sequence.computed, budget)
            while not self._grow(sequence, tokens):
                youngest = running.pop()
                self._preempt(youngest)
                preempted = True
                if youngest is sequence:
                    break
            else:
                self._batch.append((sequence, tokens))
                budget -= tokens
                decoding += sequence.computed >= sequence.prompt_tokens and tokens == 1
                position += 1
        return budget, decoding, preempted

    def _schedule_waiting(self, budget: int, now: float) -> tuple[int, int]:
        """Returns the budget left and the number of adapters to load."""
        waiting, size = self._waiting, self._settings.block_size
        without_adapter_slot: list[S] = []
        loads = 0
        while waiting and budget > 0 and len(self._running) < self._settings.max_sequences:
            sequence = waiting[0]
            if sequence.adapter is not None and not self._adapters.can_take(sequence.adapter):
                without_adapter_slot.append(waiting.popleft())
                continue
            # The last token is computed in any case: the next one is predicted from it.
            matched = self._blocks.match(sequence.hashes, limit=(sequence.length - 1) // size)
            tokens = min(sequence.length - matched * size, budget)
            holding = self._blocks.hold_prefix(sequence.hashes, matched=matched, extra=-(-tokens // size))
            if holding is None:
                break
            waiting.popleft()
            loads += self._start(sequence, holding, cached=matched * size, now=now)
            self._grow(sequence, tokens)
            self._batch.append((sequence, tokens))
            budget -= tokens
        waiting.extendleft(reversed(without_adapter_slot))
        return budget, loads

    def _start(self, sequence: S, holding: Holding, *, cached: int, now: float) -> bool:
        """Returns whether an adapter has to be loaded."""
        sequence.state = State.RUNNING
        sequence.holding = holding
        sequence.computed = cached
        self._running.append(sequence)
        if sequence.cached is None:
            sequence.cached = cached
            sequence.ran_at = now
            self.totals.cache_queries += sequence.prompt_tokens
            self.totals.cache_hits += cached
            self.totals.queued.observe(now - sequence.arrived)
        return sequence.adapter is not None and self._adapters.take(sequence.adapter)

    def _grow(self, sequence: S, tokens: int) -> bool:
        """Blocks for so many more computed tokens; False without room."""
        size = self._settings.block_size
        computed = sequence.computed + tokens
        to = -(-computed // size)
        full = sequence.full_blocks(computed, block_size=size)
        if to <= len(sequence.holding) and full <= sequence.holding.filled:
            return True
        return self._blocks.grow(sequence.holding, to=to, hashes=sequence.hashes, full=full)

    def _preempt(self, sequence: S) -> None:
        self._free(sequence)
        sequence.state = State.WAITING
        sequence.computed = 0
        self._waiting.appendleft(sequence)
        self.totals.preemptions += 1

    def _free(self, sequence: S) -> None:
        self._blocks.release(sequence.holding)
        if sequence.adapter is not None:
            self._adapters.give_back(sequence.adapter)
