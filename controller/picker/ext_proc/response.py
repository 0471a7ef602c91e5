"""The response to a request, as a gateway shows it: who serves, the first byte, the tokens, and the end.

See `Exchange`.
"""

from typing import Final

from controller.completions import Completion
from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_NAMESPACE,
    NO_CHANGES,
    SERVED_KEY,
    BodyAnswer,
    BodyMode,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    MessageUnreadable,
    Metadata,
    Part,
    Phase,
    Received,
    SetHeader,
    TrailersAnswer,
)
from controller.headers import EXPLAIN_HEADER, SESSION_TOKEN_HEADER
from controller.picker.ext_proc.desk import Desk
from controller.picker.ext_proc.intake import STEERING, tried_in
from controller.picker.ext_proc.renaming import Naming
from controller.picker.ext_proc.replies import BUFFERED, NOTHING, Replies, streamed
from controller.picker.ext_proc.restoring import Restorer
from controller.picker.ext_proc.verdicts import Picked
from controller.tokens import NO_TOKENS, Ends, ends_of

HUNG_UP: Final = 499
_ERRORS: Final = 400
"""Statuses from here on are errors."""
UPSTREAM_ADDRESS: Final = "upstream.address"
"""Attribute of Envoy: where the answer comes from. Source: Envoy, Attributes, upstream attributes."""

_PASSED: Final = encode_answer(HeadersAnswer(Phase.RESPONSE))
_PIECE_PASSED: Final = encode_answer(BodyAnswer(Phase.RESPONSE))
_TRAILERS_PASSED: Final = encode_answer(TrailersAnswer(Phase.RESPONSE))


class Response:
    """One of them, from the choice on. A gateway may answer by itself where there was none."""

    def __init__(
        self, desk: Desk, picked: Picked | None, *, naming: Naming | None, mode: BodyMode, started: float
    ) -> None:
        """`started` is when the request began, on the desk's clock."""
        self._desk = desk
        self._picked = picked
        self._naming = naming
        self._mode = mode
        self._started = started
        self._picked_at = desk.clock()
        self._address = picked.chosen[0].address if picked is not None else ""
        """Of the endpoint that the request is counted at."""
        self._status = 0
        self._first_byte: float | None = None
        """Seconds from the start to the headers."""
        self._waited: float | None = None
        self._sent = 0
        """Bytes of the body."""
        self._ends: Ends | None = None
        self._restorer: Restorer | None = None
        self.is_whole = False
        """Whether it passed to its end."""

    @property
    def is_cut(self) -> bool:
        """Whether it began, for a request that was picked for, and has not ended."""
        return self._picked is not None and self._status > 0 and not self.is_whole

    def take(self, part: Part, received: Received) -> Replies:
        """What is answered to a part of it. Raises MessageUnreadable when the part cannot come here."""
        if isinstance(part, HeadersPart):
            return self._headers(part, received)
        if isinstance(part, BodyPart):
            return self._piece(part)
        self._pass_end()
        held = self._restorer.take(b"", is_last=True) if self._restorer is not None else b""
        if not held or self._mode is not BodyMode.FULL_DUPLEX:
            return (_TRAILERS_PASSED,)
        return (*streamed(Phase.RESPONSE, held, end_of_stream=False), _TRAILERS_PASSED)

    def close(self) -> None:
        """Nothing follows: a request that has no end yet is over.

        The status of an error says all that counts of it, and of an answer whose body is not sent there is no more.
        """
        if not self.is_whole:
            says_enough = self._status >= _ERRORS or (self._status and self._mode is BodyMode.NONE)
            self._finish(self._status if says_enough else HUNG_UP)

    def _headers(self, part: HeadersPart, received: Received) -> Replies:
        if self._status:
            raise MessageUnreadable("a response has its headers once")
        headers = dict(part.headers)
        status = headers.get(":status", b"")
        self._status = int(status) if status.isdigit() and len(status) == 3 else 502
        picked = self._picked
        if picked is None:
            return (_PASSED,)
        if tried := tried_in(received.metadata):
            # None of them answered: the gateway asks again, or tells the client.
            self._desk.state.director.failed(picked.request, tried)
        else:
            self._first_byte = self._desk.clock() - self._started
            self._serve(picked, served_in(received.metadata) or _attribute(received))
        if picked.request.reads_usage:
            self._ends = ends_of(
                status=self._status, encoding=headers.get("content-encoding"), kind=headers.get("content-type")
            )
        if part.end_of_stream:
            self._pass_end()
        changes = _changes(picked, headers)
        if self._naming is not None and self._mode is not BodyMode.NONE:
            self._restorer = self._naming.restorer(headers, method=picked.request.method)
            if self._restorer is not None:
                changes = Changes(changes.set, (*changes.remove, "content-length"))
        return (encode_answer(HeadersAnswer(Phase.RESPONSE, changes)),) if changes else (_PASSED,)

    def _serve(self, picked: Picked, address: str) -> None:
        if not address or address == self._address:
            return
        chosen = next((one for one in picked.chosen if one.address == self._address), picked.chosen[0])
        listed = frozenset(one.address for one in picked.chosen[1:])
        self._address = self._desk.served(picked.request, address, was=chosen, listed=listed).address

    def _piece(self, part: BodyPart) -> Replies:
        if part.chunk:
            if not self._sent:
                self._begin()
            self._sent += len(part.chunk)
            if self._ends is not None:
                self._ends.add(part.chunk)
        if part.end_of_stream:
            self._pass_end()
        if self._restorer is not None:
            return self._restored(part, self._restorer)
        if self._mode is not BodyMode.FULL_DUPLEX:
            return (_PIECE_PASSED,)
        return streamed(Phase.RESPONSE, part.chunk, end_of_stream=part.end_of_stream)

    def _begin(self) -> None:
        """Tell of the first byte of a stream. No model has spoken in an error, which says nothing for its endpoint."""
        if self._picked is not None and self._picked.request.is_streamed and self._status < _ERRORS:
            self._waited = max(0.0, self._desk.clock() - self._picked_at)
            self._desk.began(self._picked.request, waited=self._waited)

    def _restored(self, part: BodyPart, restorer: Restorer) -> Replies:
        """What goes on for a piece of an answer that may tell of a model."""
        chunk = restorer.take(part.chunk, is_last=part.end_of_stream or self._mode in BUFFERED)
        if self._mode is not BodyMode.FULL_DUPLEX:
            # Each piece is owed an answer, an empty one where all of it is held.
            return (encode_answer(BodyAnswer(Phase.RESPONSE, chunk)),)
        if not chunk and not part.end_of_stream:
            return NOTHING
        return streamed(Phase.RESPONSE, chunk, end_of_stream=part.end_of_stream)

    def _pass_end(self) -> None:
        """It passed to its end."""
        if not self.is_whole:
            self.is_whole = True
            self._finish(self._status)

    def _finish(self, status: int) -> None:
        """Tell what became of the request, where it is in flight."""
        if self._picked is None:
            return
        request = self._picked.request
        tokens = self._ends.tokens() if self._ends is not None and status < 300 else NO_TOKENS
        now = self._desk.clock()
        self._desk.finished(
            Completion(
                id=request.id,
                pool=request.pool,
                endpoint=self._address,
                tried="",
                status=status,
                upstream_status=f"200 : {status}",
                duration=now - self._started,
                first_byte=self._first_byte,
                waited=self._waited,
                sent=self._sent,
                prompt_tokens=tokens.prompt,
                cached_tokens=tokens.cached,
                completion_tokens=tokens.completion,
                is_whole=self.is_whole,
            )
        )


def served_in(metadata: Metadata) -> str:
    """The endpoint that answered, as a gateway says it; empty when it does not."""
    value = metadata.get(ENDPOINT_NAMESPACE, {}).get(SERVED_KEY)
    return value.strip() if isinstance(value, str) else ""


def _attribute(received: Received) -> str:
    value = received.attributes.get(UPSTREAM_ADDRESS)
    return value if isinstance(value, str) else ""


def _changes(picked: Picked, headers: dict[str, bytes]) -> Changes:
    """A model server is not to speak for the gateway."""
    removed = tuple(sorted(STEERING & headers.keys()))
    told = ((EXPLAIN_HEADER, picked.why), (SESSION_TOKEN_HEADER, picked.request.session_token))
    added = tuple(SetHeader(name, value) for name, value in told if value)
    if not removed and not added:
        return NO_CHANGES
    return Changes(set=added, remove=removed)
