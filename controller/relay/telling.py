"""What a picker is told of a request. It is told again where what was chosen does not serve."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Final

from controller.extproc.messages import OWN_NAMESPACE, SUBSET_NAMESPACE, TARGET_KEY, Metadata, Phase
from controller.headers import EXPLAIN_HEADER, PRIORITY_HEADERS
from controller.relay.changes import value_of
from controller.relay.dialogue import Dialogue
from controller.relay.errors import Fault, PickerFailed
from controller.relay.http1 import Fields
from controller.relay.relayed import Relayed
from controller.relay.scope import Scope

_EXPLAIN: Final = EXPLAIN_HEADER.encode()
_PRIORITIES: Final = frozenset(name.encode() for name in PRIORITY_HEADERS)


class Telling:
    """One request, whose body comes once.

    No copy of it is kept: what was told in a dialogue is found there, and is told from it in the next one.
    """

    def __init__(self, relayed: Relayed) -> None:
        self._relayed = relayed
        self._dialogues: list[Dialogue] = []
        """In which it was told, the last one included."""
        self._again: Iterator[bytes] | None = None
        """What was told before and is to be told to the last one yet; None where nothing is."""
        self._ahead = b""
        """The next piece of it, where one was told."""
        self._task: asyncio.Task[None] | None = None

    def tell(self, dialogue: Dialogue, scope: Scope) -> None:
        """Send the picker what came of the request. A task sends the rest, where there is one.

        Where it was told before, in a dialogue that is left since, all of it is told anew.
        """
        relayed, request = self._relayed, self._relayed.request
        if self._dialogues:
            rest = (self._ahead,) if self._ahead else ()
            self._again, self._ahead = chain(self._dialogues[-1].request.original(), rest, self._again or ()), b""
        self._dialogues.append(dialogue)
        head = _head_for_picker(relayed)
        dialogue.send_head(Phase.REQUEST, head, end=not request.has_body, metadata=_metadata(relayed, scope))
        if not request.has_body:
            return
        if self._again is None and (data := request.take()):
            # The end is told with the last piece, where it is known by then.
            is_last = request.has_ended
            self._send(dialogue, data, end=is_last)
            if is_last:
                return
        self._task = relayed.start(self._send_rest(dialogue))

    def stop(self) -> None:
        """Tell no more of it for now."""
        if self._task is not None:
            self._task.cancel()

    def forget(self) -> None:
        """It is not to be told again."""
        if self._dialogues:
            self._dialogues[-1].request.forget()

    def close(self) -> None:
        """Let everything go."""
        for dialogue in self._dialogues:
            dialogue.request.clear()
        self._again = None
        self._dialogues.clear()

    async def _send_rest(self, dialogue: Dialogue) -> None:
        request = self._relayed.request
        try:
            await dialogue.drained()
            while data := self._next_again() or await request.read():
                is_last = self._again is None and request.has_ended
                self._send(dialogue, data, end=is_last)
                if is_last:
                    return
                await dialogue.drained()
            self._send(dialogue, b"", end=True)
        except PickerFailed as problem:
            dialogue.request.fail(problem)

    def _next_again(self) -> bytes:
        """The next piece of what was told before; empty after the last."""
        if self._again is None:
            return b""
        piece = self._ahead or self._take_again()
        # Whether it is the last one is known with the next.
        self._ahead = self._take_again()
        if not self._ahead:
            self._again = None
            for dialogue in self._dialogues[:-1]:
                dialogue.request.clear()
            del self._dialogues[:-1]
        return piece

    def _take_again(self) -> bytes:
        return next((piece for piece in self._again or () if piece), b"")

    def _send(self, dialogue: Dialogue, data: bytes, *, end: bool) -> None:
        try:
            dialogue.send_body(Phase.REQUEST, data, end=end)
        except PickerFailed as problem:
            dialogue.request.fail(problem)
        except OSError as problem:
            dialogue.request.fail(PickerFailed(f"no room for a body: {problem}", fault=Fault.NO_ROOM))


def _head_for_picker(relayed: Relayed) -> Fields:
    request = relayed.request
    return [
        (b":method", request.method),
        (b":scheme", value_of(request.fields, b"x-forwarded-proto") or b"http"),
        (b":authority", value_of(request.fields, b"host") or b""),
        (b":path", request.target),
        *(item for item in relayed.fields if item[0] != b"host"),
        *(item for item in request.fields if item[0] == _EXPLAIN),
    ]


def _metadata(relayed: Relayed, scope: Scope) -> Metadata | None:
    """Endpoints that the choice is restricted to, and what else NGINX says of the request, for our own picker.

    A client cannot say this: NGINX removes its headers.
    """
    fields = relayed.request.fields
    said = {name.decode(): value.decode("latin-1") for name, value in fields if name in _PRIORITIES and value}
    own = {**dict(sorted(said.items())), **scope.wish}
    if scope.tried and relayed.target:
        own[TARGET_KEY] = relayed.target.decode()
    told: Metadata = {SUBSET_NAMESPACE: scope.hint, OWN_NAMESPACE: own}
    return {namespace: values for namespace, values in told.items() if values} or None
