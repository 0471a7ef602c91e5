"""One exchange: a request from NGINX, its picker, the endpoint that it chose, and the answer."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from controller.extproc.messages import (
    OWN_NAMESPACE,
    SESSION_KEY,
    TRIED_KEY,
    HeadersAnswer,
    Immediate,
    Metadata,
    Phase,
)
from controller.headers import THEN_HEADER
from controller.relay import requesting, switching
from controller.relay.answering import Answering
from controller.relay.asked import Exchange as Served
from controller.relay.changes import changed, explanation_of, value_of
from controller.relay.dialogue import Dialogue
from controller.relay.errors import AnswerBroken, EndpointFailed, Fault, PickerFailed
from controller.relay.pools import RelayPool
from controller.relay.refusals import refusal
from controller.relay.relayed import Relayed, Services, as_relayed
from controller.relay.scope import AskAgain, Scope, Tried, scope_of, told_of
from controller.relay.server import Reply, Request
from controller.relay.tallies import Outcome
from controller.relay.telling import Telling
from controller.relay.tunnel import SWITCHED, Tunnel
from controller.relay.watching import Place

log = logging.getLogger(__name__)

_GOODBYE: Final = 5.0
"""Seconds for the picker to end a stream on which all was said."""
_PAUSE: Final = 0.02
"""Seconds before a stream that was refused is opened again; each time longer."""
_UNFIT: Final = frozenset({429, 503})
"""Of a picker that finds no endpoint among those it may choose, or none with room. Source: endpoint picker protocol."""
_UNFIT_FAULTS: Final = frozenset({Fault.ENDED, Fault.NO_ENDPOINT})
"""How others say the same: the picker of the official conformance tests ends the stream with an error."""
_REFUSES: Final = 400
"""The least status of a refusal."""
_ALL_FAILED: Final = 502
_THEN: Final = THEN_HEADER.encode()


async def serve(request: Request, reply: Reply, services: Services) -> None:
    """Answer a request that NGINX sends for a pool."""
    relayed = as_relayed(request, reply, services)
    exchange = _Exchange(relayed)
    relayed.tally.under_way += 1
    try:
        await exchange.run()
    except asyncio.CancelledError:
        relayed.tally.outcomes[Outcome.GIVEN_UP] += 1
        raise
    finally:
        relayed.tally.under_way -= 1
        exchange.close()


class _Exchange:
    def __init__(self, relayed: Relayed) -> None:
        self._relayed = relayed
        self._dialogue: Dialogue | None = None
        self._telling: Telling | None = None
        self._scope = Scope()
        """What the picker is asked to choose from, this time."""
        self._failure: EndpointFailed | None = None
        """Of what was chosen before."""
        self._waited = 0.0
        """Seconds in which the picker did not say what it chooses."""
        self._waited_before = 0.0
        """Of these, up to its last choice."""
        self._served: Served | None = None
        self._answering: Answering | None = None
        self._places: tuple[Place, ...] = ()
        """Of the picker."""
        self._task = asyncio.current_task()
        self._immediate: Immediate | None = None
        """The picker's own answer, which cancels everything else."""

    async def run(self) -> None:
        name = self._relayed.pool
        pool = self._relayed.services.table.pools.get(name)
        try:
            if pool is None:
                raise PickerFailed(f"there is no pool {name} with an external picker")
            await self._pass_or_refuse(pool)
        except PickerFailed as problem:
            await self._without_picker(problem)
        except EndpointFailed as problem:
            self._note_fault()
            await self._without_endpoint(problem)
        except AnswerBroken as problem:
            self._note_fault()
            self._cut(str(problem))

    def close(self) -> None:
        self._relayed.close()
        if self._answering is not None:
            self._answering.close()
        if self._served is not None:
            self._served.close()
        if self._telling is not None:
            self._telling.close()
        if self._dialogue is not None:
            self._dialogue.cancel()
        # Nothing of it waits for the collector of garbage.
        self._answering = self._dialogue = self._telling = self._task = None

    async def _pass_or_refuse(self, pool: RelayPool) -> None:
        assert self._task is not None  # it runs in one
        cancelling = self._task.cancelling()
        try:
            await self._pass(pool)
        except asyncio.CancelledError:
            if self._immediate is None or self._task.uncancel() > cancelling:
                raise
            await self._refuse(self._immediate)

    async def _pass(self, pool: RelayPool) -> None:
        relayed = self._relayed
        self._scope = scope_of(relayed.request.fields, pool)
        telling = self._telling = Telling(relayed)
        while True:
            try:
                dialogue, address = await self._ask(pool, telling)
                break
            except AskAgain as problem:
                log.info("picker is asked again", extra={"pool": relayed.pool, "reason": str(problem)})
                self._scope = problem.scope
        telling.forget()
        served = self._served
        assert served is not None  # it was asked
        if isinstance(served, Tunnel) and served.status == SWITCHED:
            await switching.join(relayed, dialogue, served, address=address)
        else:
            self._answering = Answering(relayed, dialogue, served)
            await self._answering.run(address=address)
        relayed.tally.outcomes[Outcome.SERVED] += 1
        self._note_fault()
        self._dialogue = None
        dialogue.finish(patience=_GOODBYE)

    async def _ask(self, pool: RelayPool, telling: Telling) -> tuple[Dialogue, str]:
        """Ask the picker, and the endpoint that it chooses, which serves then: its address.

        Raises AskAgain when the picker is to be asked once more.
        """
        relayed, scope = self._relayed, self._scope
        table = relayed.services.table
        try:
            dialogue, answer = await self._choice(pool, telling)
            named = await requesting.chosen(answer, dialogue.request.metadata, pool=pool, table=table)
        except PickerFailed as problem:
            if self._failure is not None:
                self._leave(telling)
                if problem.fault not in _UNFIT_FAULTS:
                    relayed.tally.faults[problem.fault] += 1
                raise self._failure from problem
            if not scope.session or problem.fault not in _UNFIT_FAULTS:
                raise
            self._leave(telling)
            raise AskAgain(str(problem), scope.without_session()) from problem
        except AskAgain:
            self._leave(telling)
            raise
        addresses = scope.untried(named)
        if self._failure is not None and not addresses:
            raise self._failure
        before = len(relayed.tried)
        try:
            if relayed.request.upgrade and not pool.speaks_http2:
                address, self._served = await switching.ask(relayed, addresses, answer=answer)
            else:
                address, self._served = await requesting.ask(
                    relayed, addresses, answer=answer, body=dialogue.request.body, speaks_http2=pool.speaks_http2
                )
        except EndpointFailed as problem:
            self._leave(telling, failed=relayed.tried[before:])
            left = scope.beside(relayed.tried, pool=table.pools.get(pool.name, pool))
            self._failure = problem
            # Infergate's own picker knows then what became of the request, and says why.
            if not left.left and (scope.is_last or not relayed.is_infergates):
                raise
            raise AskAgain(str(problem), left) from problem
        return dialogue, address

    async def _choice(self, pool: RelayPool, telling: Telling) -> tuple[Dialogue, HeadersAnswer]:
        """Raises PickerFailed, AskAgain when the picker refuses the endpoint of the session, and EndpointFailed when it
        refuses what is left."""
        begun = asyncio.get_running_loop().time()
        relayed = self._relayed
        services = relayed.services
        dialogue = Dialogue(budget=services.budget, interrupt=self._interrupt, reopen=self._reopen)
        self._places = pool.places
        dialogue.begin(await services.pickers.call(pool.places, dialogue))
        self._dialogue = dialogue
        telling.tell(dialogue, self._scope)
        # A wait for a stream counts, and one for a choice before this.
        patience = services.patience.answer - self._waited - (asyncio.get_running_loop().time() - begun)
        try:
            answer = await dialogue.request.head(patience=max(0.0, patience), what="a choice")
        finally:
            self._waited += asyncio.get_running_loop().time() - begun
        assert answer is not None  # a picker that ends before it chose has failed
        relayed.take_note(dialogue.request.metadata, pool=pool)
        # A refusal before the choice is a part of it.
        relayed.chosen_within(self._waited - self._waited_before)
        self._waited_before = self._waited
        return dialogue, answer

    def _leave(self, telling: Telling, *, failed: Sequence[Tried] = ()) -> None:
        """End a dialogue whose choice does not serve, with an answer that says which endpoints failed.

        What was said of the request is kept there, for the next dialogue.
        """
        telling.stop()
        dialogue = self._dialogue
        if dialogue is None:
            return
        if not failed:
            dialogue.cancel(keeps_request=True)
        else:
            self._note_fault()
            metadata = {OWN_NAMESPACE: {TRIED_KEY: told_of(failed)}}
            if not dialogue.is_over:
                with suppress(PickerFailed):
                    dialogue.send_head(Phase.RESPONSE, [(b":status", b"%d" % _ALL_FAILED)], end=True, metadata=metadata)
            dialogue.finish(patience=_GOODBYE, keeps_request=True)
        self._dialogue = None

    def _interrupt(self, immediate: Immediate, metadata: Metadata) -> None:
        dialogue = self._dialogue
        may_be_of_session = immediate.status in _UNFIT and SESSION_KEY not in metadata.get(OWN_NAMESPACE, {})
        if self._scope.session and may_be_of_session and dialogue is not None and not dialogue.request.is_answered:
            scope = self._scope.without_session()
            dialogue.request.fail(AskAgain(f"the picker refuses it with status {immediate.status}", scope))
            return
        is_refusal = immediate.status >= _REFUSES and dialogue is not None and not dialogue.request.is_answered
        if self._failure is not None and dialogue is not None and is_refusal:
            # Of a question that the client never asked: it is told why it was asked.
            self._relayed.explanation = explanation_of(immediate.changes) or self._relayed.explanation
            dialogue.request.fail(self._failure)
            return
        if self._immediate is None and self._task is not None:
            self._immediate = immediate
            self._task.cancel()

    def _reopen(self, refused: int) -> None:
        self._relayed.start(self._open_again(refused))

    async def _open_again(self, refused: int) -> None:
        await asyncio.sleep(_PAUSE * refused)
        dialogue = self._dialogue
        if dialogue is None or dialogue.is_over:
            return
        try:
            call = await self._relayed.services.pickers.call(self._places, dialogue, refused=refused)
        except PickerFailed as problem:
            dialogue.give_up(problem)
            return
        dialogue.resume(call)

    # Ends that are not served.

    async def _refuse(self, immediate: Immediate) -> None:
        """The picker's own answer is the client's, whatever the failure mode."""
        if self._relayed.reply.has_begun:
            self._cut(f"the picker ended it with status {immediate.status}")
            return
        if not 200 <= immediate.status <= 599:
            await self._without_picker(PickerFailed(f"the picker answers with status {immediate.status}"))
            return
        self._relayed.tally.outcomes[Outcome.REFUSED] += 1
        fields = changed([(b"content-type", b"text/plain")] if immediate.body else [], immediate.changes)
        self._relayed.explanation = explanation_of(immediate.changes)
        await self._relayed.reply.whole(immediate.status, [*fields, *self._relayed.notes()], immediate.body)

    async def _without_picker(self, problem: PickerFailed) -> None:
        """NGINX has the whole request still, and goes on as the pool's failure mode says."""
        self._relayed.tally.faults[problem.fault] += 1
        log.warning("picker failed", extra={"pool": self._relayed.pool, "reason": str(problem)})
        then = value_of(self._relayed.request.fields, _THEN)
        if then is None or self._relayed.reply.has_begun:
            self._cut(str(problem))
            return
        self._relayed.tally.outcomes[Outcome.PICKER_FAILED] += 1
        await self._relayed.reply.whole(200, [(b"x-accel-redirect", then)], b"")

    async def _without_endpoint(self, problem: EndpointFailed) -> None:
        self._relayed.tally.outcomes[Outcome.ENDPOINT_FAILED] += 1
        log.warning("no endpoint answered", extra={"pool": self._relayed.pool, "reason": str(problem)})
        message = "the model servers that were tried failed"
        fields, body = refusal(self._relayed.request.target, message=message, code="endpoints_failed")
        await self._relayed.reply.whole(_ALL_FAILED, [*fields, *self._relayed.notes()], body)

    def _note_fault(self) -> None:
        """A picker that failed once an endpoint was asked."""
        if self._dialogue is not None and self._dialogue.problem is not None:
            self._relayed.tally.faults[self._dialogue.problem.fault] += 1

    def _cut(self, reason: str) -> None:
        """End the connection: a part of the answer was sent, and the rest will not come."""
        self._relayed.tally.outcomes[Outcome.BROKEN] += 1
        log.warning("answer cut", extra={"pool": self._relayed.pool, "reason": reason})
