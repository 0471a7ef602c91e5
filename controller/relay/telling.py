"""What a picker is told of a request. It may be told it again, where its first choice does not serve."""

import asyncio
from typing import Final

from controller.bundle import EXPLAIN_HEADER, PRIORITY_HEADERS
from controller.extproc.messages import OWN_NAMESPACE, SUBSET_NAMESPACE, Metadata, Phase
from controller.relay.changes import value_of
from controller.relay.dialogue import Dialogue
from controller.relay.errors import Fault, PickerFailed
from controller.relay.http1 import Fields
from controller.relay.pieces import Pieces
from controller.relay.relayed import Relayed
from controller.relay.scope import Scope
from controller.relay.server import Request

_EXPLAIN: Final = EXPLAIN_HEADER.encode()
_PRIORITIES: Final = frozenset(name.encode() for name in PRIORITY_HEADERS)


class Telling:
    """One request, whose body comes once."""

    def __init__(self, relayed: Relayed, *, keeps: bool) -> None:
        """`keeps`: whether it may have to be told again."""
        self._relayed = relayed
        self._keeps = keeps
        self._kept = Pieces(relayed.services.budget)
        self._task: asyncio.Task[None] | None = None

    def tell(self, dialogue: Dialogue, scope: Scope) -> None:
        """Send the picker what came of the request. A task sends the rest, where there is one."""
        relayed, request = self._relayed, self._relayed.request
        head = _head_for_picker(relayed)
        dialogue.send_head(Phase.REQUEST, head, end=not request.has_body, metadata=_metadata(request, scope))
        if not request.has_body:
            return
        if data := request.take():
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

    def repeat(self, dialogue: Dialogue, scope: Scope) -> None:
        """Tell all of it to the picker anew, in another scope. This can be done once, after a stop."""
        self._keeps = False
        if not self._kept.holds:
            self.tell(dialogue, scope)
            return
        relayed = self._relayed
        metadata = _metadata(relayed.request, scope)
        dialogue.send_head(Phase.REQUEST, _head_for_picker(relayed), end=False, metadata=metadata)
        self._task = relayed.start(self._send_kept(dialogue))

    def forget(self) -> None:
        """It is not to be told again."""
        if self._keeps:
            self._keeps = False
            self._kept.clear()

    def close(self) -> None:
        """Let everything go."""
        self._keeps = False
        self._kept.clear()

    async def _send_kept(self, dialogue: Dialogue) -> None:
        try:
            while self._kept.holds:
                await dialogue.drained()
                piece = self._kept.drop()
                is_last = self._relayed.request.has_ended and not self._kept.holds
                self._send(dialogue, piece, end=is_last)
                if is_last:
                    return
        except PickerFailed as problem:
            dialogue.request.fail(problem)
            return
        await self._send_rest(dialogue)

    async def _send_rest(self, dialogue: Dialogue) -> None:
        request = self._relayed.request
        try:
            await dialogue.drained()
            while data := await request.read():
                is_last = request.has_ended
                self._send(dialogue, data, end=is_last)
                if is_last:
                    return
                await dialogue.drained()
            self._send(dialogue, b"", end=True)
        except PickerFailed as problem:
            dialogue.request.fail(problem)

    def _send(self, dialogue: Dialogue, data: bytes, *, end: bool) -> None:
        try:
            if self._keeps and data:
                self._kept.add(data)
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


def _metadata(request: Request, scope: Scope) -> Metadata | None:
    """Endpoints that the choice is restricted to, and what else NGINX says of the request, for our own picker.

    A client cannot say this: NGINX removes its headers.
    """
    said = {name.decode(): value.decode("latin-1") for name, value in request.fields if name in _PRIORITIES and value}
    own = {**dict(sorted(said.items())), **scope.wish}
    told: Metadata = {SUBSET_NAMESPACE: scope.hint, OWN_NAMESPACE: own}
    return {namespace: values for namespace, values in told.items() if values} or None
