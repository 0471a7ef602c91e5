"""The way of an answer: from the endpoint, through the picker, to the client."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from controller.extproc.messages import ENDPOINT_NAMESPACE, SERVED_KEY, Phase
from controller.headers import USAGE_HEADER
from controller.relay.asked import Exchange
from controller.relay.changes import changed, explanation_of, ordinary, status_of, value_of
from controller.relay.dialogue import Dialogue
from controller.relay.errors import AnswerBroken, EndpointFailed, Fault, PickerFailed
from controller.relay.http1 import NO_BODY, Fields
from controller.relay.relayed import Relayed
from controller.tokens import NO_TOKENS, Ends, ends_of

log = logging.getLogger(__name__)

_USAGE: Final = USAGE_HEADER.encode()
_BACKLOG: Final = 512 * 1024
"""Bytes of an answer that wait for the client, at which no more are taken from the endpoint."""


class Answering:
    """One answer."""

    def __init__(self, relayed: Relayed, dialogue: Dialogue, served: Exchange) -> None:
        self._relayed = relayed
        self._dialogue = dialogue
        self._served = served
        self._timer: asyncio.TimerHandle | None = None
        self._ends: Ends | None = None
        """Where the tokens are read."""
        self._has_passed = False
        """Whether the endpoint's answer has, to its end."""

    async def run(self, *, address: str) -> None:
        """Answer the client, with the address of the endpoint that serves.

        Raises EndpointFailed before the client's answer began, and AnswerBroken after that.
        """
        dialogue, served, relayed = self._dialogue, self._served, self._relayed
        fields = ordinary(served.fields)
        length = _length(fields)
        is_empty = relayed.request.method == b"HEAD" or served.status in NO_BODY or length == 0
        if not dialogue.is_over:
            metadata = {ENDPOINT_NAMESPACE: {SERVED_KEY: address}}
            head = [(b":status", b"%d" % served.status), *fields]
            with suppress(PickerFailed):  # then it is released, and what follows goes on as it is
                dialogue.send_head(Phase.RESPONSE, head, end=is_empty, metadata=metadata)
        if relayed.reads_usage and not is_empty:
            self._ends = ends_of(
                status=served.status,
                encoding=value_of(fields, b"content-encoding"),
                kind=value_of(fields, b"content-type"),
            )
        self._read(is_empty=is_empty)
        try:
            answer = await dialogue.response.head(
                patience=relayed.services.patience.answer, what="an answer to the response's headers"
            )
        except PickerFailed as problem:
            if dialogue.response.is_half:
                # The endpoint has done its work: to ask another one would do it twice.
                raise EndpointFailed(str(problem)) from problem
            log.warning("answer goes on without its picker", extra={"pool": relayed.pool, "reason": str(problem)})
            dialogue.give_up(problem)
            answer = None
        status = served.status
        if answer is not None:
            fields, status = changed(fields, answer.changes), status_of(answer.changes, status)
            relayed.explanation = explanation_of(answer.changes) or relayed.explanation
        if answer is not None or not is_empty:
            fields = [item for item in fields if item[0] != b"content-length"]
        if served.status in NO_BODY:
            length = 0  # whatever it tells of: the picker may make it a status that has a body
        # Without a length there is a place for the tokens behind the body.
        unchanged = answer is None and not dialogue.response.is_half and self._ends is None
        await relayed.reply.begin(
            status,
            [*fields, *relayed.notes(address)],
            length=length if unchanged or is_empty else None,
        )
        if status not in NO_BODY and (not is_empty or dialogue.response.body.size):
            await self._send_body()
        await relayed.reply.end(self._tokens())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _send_body(self) -> None:
        outlet = self._dialogue.response.body
        try:
            while piece := await outlet.take():
                await self._relayed.reply.write(piece)
        except (PickerFailed, EndpointFailed) as problem:
            raise AnswerBroken(str(problem)) from problem

    def _tokens(self) -> Fields:
        """What the answer says of them, for NGINX."""
        if self._ends is None or not self._has_passed:
            return ()
        tokens = self._ends.tokens()
        if tokens == NO_TOKENS:
            return ()
        return ((_USAGE, b"/".join(b"" if count is None else b"%d" % count for count in tokens)),)

    def _read(self, *, is_empty: bool) -> None:
        """Pass on what came of the answer. A task passes the rest on, where there is one."""
        if is_empty:
            self._dialogue.response.body.end()
            return
        data, has_ended = self._served.take()
        if data or has_ended:
            self._pass_on(data, end=has_ended)
        if not has_ended:
            self._relayed.start(self._read_rest())
        self._wait_for_picker()

    async def _read_rest(self) -> None:
        outlet = self._dialogue.response.body
        try:
            while data := await self._served.read():
                self._pass_on(data, end=False)
                with suppress(PickerFailed):
                    await self._dialogue.drained()
                await outlet.wait_until_below(_BACKLOG)
            self._pass_on(b"", end=True)
        except EndpointFailed as problem:
            outlet.fail(problem)

    def _pass_on(self, data: bytes, *, end: bool) -> None:
        response = self._dialogue.response
        if self._ends is not None:
            self._ends.add(data)
            self._has_passed = end
        try:
            self._dialogue.send_body(Phase.RESPONSE, data, end=end)
        except PickerFailed:
            if not response.is_half:
                response.flush()
        except OSError as problem:
            response.body.fail(EndpointFailed(f"no room for a body: {problem}"))

    def _wait_for_picker(self) -> None:
        """A picker that has a part of the answer, and gives nothing back or takes no more, is not waited for long."""
        dialogue, loop = self._dialogue, asyncio.get_running_loop()
        if dialogue.response.body.has_ended or dialogue.is_over:
            return
        now, since = loop.time(), dialogue.response.awaited_since
        until = (now if since is None else since) + self._relayed.services.patience.answer
        if now < until:
            self._timer = loop.call_at(until, self._wait_for_picker)
            return
        dialogue.give_up(PickerFailed("the picker does not give back the rest of an answer", fault=Fault.LATE))


def _length(fields: Fields) -> int | None:
    value = value_of(fields, b"content-length")
    return int(value) if value is not None and value.isdigit() else None
