"""Sequences of a request, from the engine to the client."""

from collections.abc import Sequence as Items

from controller.simulator.answers import Events
from controller.simulator.engine import State
from controller.simulator.exchange import ClientLeft, Exchange
from controller.simulator.pod import Generation, Pod


async def run(pod: Pod, exchange: Exchange, sequences: Items[Generation]) -> None:
    """Waits until all have finished. Raises ClientLeft."""
    _submit(pod, exchange, sequences)
    for sequence in sequences:
        while not sequence.is_over:
            sequence.progress.clear()
            await sequence.progress.wait()
    if any(sequence.state is State.ABORTED for sequence in sequences):
        raise ClientLeft


async def stream(
    pod: Pod, exchange: Exchange, sequences: Items[Generation], *, events: Events, has_usage: bool
) -> None:
    """Send each token as it comes, or several at once to a client that reads slowly. Raises ClientLeft."""
    progress = sequences[0].progress
    for sequence in sequences:
        sequence.progress = progress
    _submit(pod, exchange, sequences)
    has_begun = not pod.settings.headers_wait
    if has_begun:
        await exchange.begin_events()
    pending = events.opening()
    parts = [_Part(index, sequence, events) for index, sequence in enumerate(sequences)]
    while parts:
        news = b"".join([part.news() for part in parts])
        if not news:
            if any(part.sequence.is_over for part in parts):
                raise ClientLeft
            progress.clear()
            await progress.wait()
            continue
        parts = [part for part in parts if not part.is_whole]
        if not has_begun:
            await exchange.begin_events()
            has_begun = True
        if not parts:
            news += (events.usage_event(sequences) if has_usage else b"") + events.ending
        await exchange.send_events(pending + news, is_last=not parts)
        pending = b""


class _Part:
    """What was sent of one sequence of a streamed answer."""

    __slots__ = ("_events", "_index", "_pieces", "_sent", "sequence")

    def __init__(self, index: int, sequence: Generation, events: Events) -> None:
        self.sequence = sequence
        self._index = index
        self._events = events
        self._pieces = events.pieces(index)
        self._sent = 0

    @property
    def is_whole(self) -> bool:
        return self._sent == self.sequence.answer_tokens

    def news(self) -> bytes:
        """The events of the tokens that came since the last time."""
        sequence, events = self.sequence, self._events
        news = b""
        for token in range(self._sent, sequence.generated):
            text = sequence.piece(token)
            if token + 1 == sequence.answer_tokens:
                news += events.last_token(self._index, text, sequence)
            elif self._pieces:
                news += text.join(self._pieces)
            else:
                news += events.token(self._index, text, sequence, number=token + 1)
        self._sent = sequence.generated
        return news


def _submit(pod: Pod, exchange: Exchange, sequences: Items[Generation]) -> None:
    def abort() -> None:
        for sequence in sequences:
            pod.abort(sequence)

    if not pod.is_alive or exchange.is_lost:
        raise ClientLeft
    exchange.on_lost = abort
    for sequence in sequences:
        pod.submit(sequence)
