"""One exchange of HTTP, as a gateway shows it part by part, and what the picker answers to each.

No input or output is done here: parts come in, and messages go out. Headers of a request are answered when the whole
body is there, since the choice depends on the prompt. Where the gateway holds the body back until then, or sends none,
they are answered at once.

Source: envoy/service/ext_proc/v3/external_processor.proto; endpoint picker protocol 1.0.0.
"""

from collections.abc import Awaitable, Mapping
from enum import Enum, auto
from typing import Final

from controller.bundle import ENDPOINT_HEADER, EXPLAIN_HEADER, Completion
from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    EXPLANATION_KEY,
    MODEL_KEY,
    NO_CHANGES,
    OWN_NAMESPACE,
    SERVED_KEY,
    SESSION_KEY,
    TARGET_KEY,
    USAGE_KEY,
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
from controller.extproc.wire import chunks_of, encode_piece
from controller.picker.answers import Outcome, Refusal
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.intake import STEERING, Intake, intake_of, tried_in
from controller.picker.ext_proc.renaming import Naming, changes_of, naming_of
from controller.picker.ext_proc.restoring import Restorer
from controller.picker.ext_proc.verdicts import Answered, Picked, Verdict, refusal_of
from controller.picker.prompt import KEPT
from controller.tokens import NO_TOKENS, Ends, ends_of

Replies = tuple[bytes, ...]
"""Messages, in the order in which they are sent."""

HUNG_UP: Final = 499
UPSTREAM_ADDRESS: Final = "upstream.address"
"""Attribute of Envoy: where the answer comes from. Source: Envoy, Attributes, upstream attributes."""

_NOTHING: Final[Replies] = ()
_TOO_LARGE: Final = Refusal(Outcome.TOO_LARGE, 413, "the body is larger than the endpoint picker can hold")
_NO_ROOM: Final = Refusal(Outcome.NO_ROOM, 429, "the bodies of other requests take all the memory", 1)
_FULL_DUPLEX: Final = (BodyMode.FULL_DUPLEX, BodyMode.FULL_DUPLEX)
"""What the endpoint picker protocol asks of gateways, which older ones do not say."""
_AT_ONCE: Final = (BodyMode.NONE, BodyMode.STREAMED)
"""Modes in which the headers have gone on before there is a body."""
_BUFFERED: Final = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)
"""Modes in which there is one piece of body."""
_REQUEST_PASSED: Final = encode_answer(HeadersAnswer(Phase.REQUEST))
_REQUEST_PIECE_PASSED: Final = encode_answer(BodyAnswer(Phase.REQUEST))
_REQUEST_TRAILERS_PASSED: Final = encode_answer(TrailersAnswer(Phase.REQUEST))
_RESPONSE_PASSED: Final = encode_answer(HeadersAnswer(Phase.RESPONSE))
_RESPONSE_PIECE_PASSED: Final = encode_answer(BodyAnswer(Phase.RESPONSE))
_RESPONSE_TRAILERS_PASSED: Final = encode_answer(TrailersAnswer(Phase.RESPONSE))


class _Stage(Enum):
    NEW = auto()
    READING = auto()
    """The body of the request comes."""
    WAITING = auto()
    """It is whole, and its pool is saturated."""
    DECIDED = auto()
    ANSWERING = auto()
    """The response comes."""
    OVER = auto()


class Exchange:
    """One stream's worth of it. Call `close` when the stream is over, however it ended."""

    def __init__(self, desk: Desk, identity: str) -> None:
        """`identity` tells the request from all others in flight."""
        self._desk = desk
        self._identity = identity
        self._stage = _Stage.NEW
        self._started = desk.clock()
        self._modes = _FULL_DUPLEX
        self._intake: Intake | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        """Bytes of the request's body so far."""
        self._held = 0
        """Of these, what is counted in the memory of all bodies."""
        self._has_trailers = False
        self._is_cut = False
        """Whether the body goes on behind what came of it."""
        self._naming: Naming | None = None
        self._restorer: Restorer | None = None
        self._picked: Picked | None = None
        self._picked_at = 0.0
        self._address = ""
        """Of the endpoint that the request is counted at."""
        self._status = 0
        self._first_byte: float | None = None
        """Seconds from the start to the answer's headers."""
        self._waited: float | None = None
        self._sent = 0
        """Bytes of the answer's body."""
        self._ends: Ends | None = None
        self._end: End | None = None

    @property
    def is_over(self) -> bool:
        """Whether the picker has nothing to say any more."""
        return self._stage is _Stage.OVER

    @property
    def is_waiting(self) -> bool:
        """Whether `take` gave a verdict to wait for, and `decided` was not called yet."""
        return self._stage is _Stage.WAITING

    def take(self, received: Received) -> Replies | Awaitable[Verdict]:
        """What is answered to a part; or a verdict to wait for, and to give to `decided`.

        Raises MessageUnreadable when the part cannot come here.
        """
        part = received.part
        if part.phase is Phase.RESPONSE:
            return self._response(part, received)
        if isinstance(part, HeadersPart):
            return self._request_headers(part, received)
        if self._stage is _Stage.READING:
            return self._request_piece(part)
        if self._stage is _Stage.NEW:
            raise MessageUnreadable("a request begins with its headers")
        return self._late(part)

    def decided(self, verdict: Verdict) -> Replies:
        """What is answered once it was decided."""
        if isinstance(verdict, Answered):
            return self._answer(verdict)
        self._stage = _Stage.DECIDED
        self._picked = verdict
        self._picked_at = self._desk.clock()
        self._address = verdict.chosen[0].address
        replies = self._picked_replies(verdict)
        self._pieces = []
        return replies

    def overflows(self, size: int) -> Replies:
        """What is answered when so many bytes of a part find no memory; nothing where it is no body of a request."""
        if self._stage is not _Stage.READING:
            return _NOTHING
        return self._refuse(_TOO_LARGE if self._size + size > self._desk.body_memory else _NO_ROOM)

    def sent(self) -> None:
        """The answers to the request are gone, and its body with them."""
        if self._held and self._stage not in (_Stage.READING, _Stage.WAITING):
            self._release()

    def close(self, *, end: End | None = None) -> None:
        """Let everything go. `end` says why, where it is not what was seen."""
        self._release()
        if self._picked is not None and self._end is None:
            self._finish(HUNG_UP)
            self._end = End.CUT if self._status else End.WITHOUT_RESPONSE
        if self._end is None:
            self._end = End.EMPTY if self._stage is _Stage.NEW else End.WITHOUT_RESPONSE
        self._desk.ended[end or self._end] += 1
        self._stage = _Stage.OVER

    def _request_headers(self, part: HeadersPart, received: Received) -> Replies | Awaitable[Verdict]:
        if self._stage is not _Stage.NEW:
            raise MessageUnreadable("a request has its headers once")
        self._modes = received.modes or _FULL_DUPLEX
        self._intake = intake_of(part.headers, received.metadata)
        if part.end_of_stream:
            # Nothing to hold back.
            self._modes = (BodyMode.NONE, self._modes[1])
        if self._modes[0] in _AT_ONCE:
            return self._choose()
        self._stage = _Stage.READING
        return (_REQUEST_PASSED,) if self._modes[0] is not BodyMode.FULL_DUPLEX else _NOTHING

    def _request_piece(self, part: Part) -> Replies | Awaitable[Verdict]:
        if not isinstance(part, BodyPart):
            self._has_trailers = True
            return self._choose()
        refusal = self._hold(part.chunk)
        if refusal is not None:
            return self._refuse(refusal)
        self._is_cut = self._modes[0] is BodyMode.BUFFERED_PARTIAL and not part.end_of_stream
        if part.end_of_stream or self._modes[0] is not BodyMode.FULL_DUPLEX:
            # A buffered body comes at once, without its end where trailers follow or the buffer was full.
            return self._choose()
        return _NOTHING

    def _hold(self, chunk: bytes) -> Refusal | None:
        """Keep a piece of the body; the refusal if there is no room."""
        desk = self._desk
        self._size += len(chunk)
        if self._size > desk.body_memory:
            return _TOO_LARGE
        if desk.held + len(chunk) > desk.body_memory:
            return _NO_ROOM
        desk.held += len(chunk)
        self._held += len(chunk)
        if chunk:
            self._pieces.append(chunk)
        return None

    def _refuse(self, refusal: Refusal) -> Replies:
        assert self._intake is not None  # the stage says so
        self._desk.state.director.count(self._desk.pool_name(), refusal.outcome)
        return self._answer(refusal_of(refusal, method=self._intake.method, path=self._intake.path))

    def _choose(self) -> Replies | Awaitable[Verdict]:
        assert self._intake is not None  # it came first
        desk = self._desk
        started = desk.clock()
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        whole = self._pieces[0] if self._pieces else b""
        pool, director = desk.pool_name(), desk.state.director
        model = target = ""
        if whole and not self._is_cut and director.rewrites(pool):
            naming = naming_of(self._intake, whole, pool=pool, target_of=director.target)
            if naming is not None:
                self._naming, model, target = naming, naming.model, naming.target
        body = whole if self._size <= KEPT else b""
        request = self._intake.request(
            self._identity, pool=pool, body=body, size=self._size, model=model, target=target
        )
        answer = desk.choosing.choose(request, started=started)
        if isinstance(answer, Picked | Answered):
            return self.decided(answer)
        self._stage = _Stage.WAITING
        if self._modes[0] is not BodyMode.FULL_DUPLEX and not self._is_renamed:
            self._release()
        return answer

    @property
    def _is_renamed(self) -> bool:
        """Whether the body is to name another model."""
        return self._naming is not None and self._naming.is_changed

    def _late(self, part: Part) -> Replies:
        """A part of a request that was decided, or waits: a second end of the body, or a body that is not looked at."""
        if self._modes[0] is BodyMode.FULL_DUPLEX or self._stage is _Stage.WAITING:
            return _NOTHING
        return (_REQUEST_PIECE_PASSED,) if isinstance(part, BodyPart) else (_REQUEST_TRAILERS_PASSED,)

    def _answer(self, answered: Answered) -> Replies:
        self._release()
        self._stage = _Stage.OVER
        self._end = End.ANSWERED
        session = self._intake.session if self._intake is not None else ""
        metadata = {OWN_NAMESPACE: {SESSION_KEY: session}} if session else None
        return (encode_answer(answered.immediate, metadata=metadata),)

    def _picked_replies(self, picked: Picked) -> Replies:
        assert self._intake is not None  # it came first
        endpoints = picked.endpoints
        changes = Changes(set=(SetHeader(ENDPOINT_HEADER, endpoints.encode()),), remove=self._intake.removed)
        metadata: dict[str, Mapping[str, str | bool]] = {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: endpoints}}
        if own := self._told(picked):
            metadata[OWN_NAMESPACE] = own
        mode = self._modes[0]
        body = self._pieces[0] if self._pieces else b""
        if self._naming is not None and self._naming.is_changed:
            body = self._naming.body(body)
            changes = changes_of(changes, self._intake, size=len(body), mode=mode)
        if mode in _BUFFERED:
            if self._has_trailers:
                # There was no body: nothing is left that headers could be changed by.
                return (encode_answer(TrailersAnswer(Phase.REQUEST), metadata=metadata),)
            chunk = body if self._is_renamed else None
            answer = BodyAnswer(Phase.REQUEST, chunk, changes=changes, clears_route=True)
            return (encode_answer(answer, metadata=metadata),)
        headers = encode_answer(HeadersAnswer(Phase.REQUEST, changes, clears_route=True), metadata=metadata)
        if mode in _AT_ONCE:
            return (headers,)
        replies = [headers]
        if body or not self._has_trailers:
            replies += _streamed(Phase.REQUEST, body, end_of_stream=not self._has_trailers)
        if self._has_trailers:
            replies.append(_REQUEST_TRAILERS_PASSED)
        return tuple(replies)

    def _told(self, picked: Picked) -> dict[str, str | bool]:
        """What Infergate's own gateway is told of a request besides."""
        request = picked.request
        told: dict[str, str | bool] = {}
        if picked.why:
            told[EXPLANATION_KEY] = picked.why.decode()
        if request.model:
            told[MODEL_KEY] = request.model
        if request.target:
            told[TARGET_KEY] = request.target
        if self._desk.reads_usage(request.pool):
            told[USAGE_KEY] = request.reads_usage
        return told

    def _response(self, part: Part, received: Received) -> Replies:
        if self._stage is _Stage.NEW:
            raise MessageUnreadable("a response comes after its request")
        if self._stage is not _Stage.ANSWERING:
            # The gateway may answer by itself, a request that waits for its verdict as well.
            self._stage = _Stage.ANSWERING
            self._release()
        if isinstance(part, HeadersPart):
            return self._response_headers(part, received)
        if isinstance(part, BodyPart):
            return self._response_piece(part)
        self._pass_end()
        held = self._restorer.take(b"", is_last=True) if self._restorer is not None else b""
        if not held or self._modes[1] is not BodyMode.FULL_DUPLEX:
            return (_RESPONSE_TRAILERS_PASSED,)
        return (*_streamed(Phase.RESPONSE, held, end_of_stream=False), _RESPONSE_TRAILERS_PASSED)

    def _response_headers(self, part: HeadersPart, received: Received) -> Replies:
        if self._status:
            raise MessageUnreadable("a response has its headers once")
        headers = dict(part.headers)
        status = headers.get(":status", b"")
        self._status = int(status) if status.isdigit() and len(status) == 3 else 502
        picked = self._picked
        if picked is None:
            return (_RESPONSE_PASSED,)
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
        if self._naming is not None and self._modes[1] is not BodyMode.NONE:
            self._restorer = self._naming.restorer(headers, method=picked.request.method)
            if self._restorer is not None:
                changes = Changes(changes.set, (*changes.remove, "content-length"))
        return (encode_answer(HeadersAnswer(Phase.RESPONSE, changes)),) if changes else (_RESPONSE_PASSED,)

    def _serve(self, picked: Picked, address: str) -> None:
        if not address or address == self._address:
            return
        chosen = next((one for one in picked.chosen if one.address == self._address), picked.chosen[0])
        listed = frozenset(one.address for one in picked.chosen[1:])
        self._address = self._desk.served(picked.request, address, was=chosen, listed=listed).address

    def _response_piece(self, part: BodyPart) -> Replies:
        if part.chunk:
            if not self._sent and self._picked is not None and self._picked.request.is_streamed:
                self._waited = max(0.0, self._desk.clock() - self._picked_at)
                self._desk.began(self._picked.request, waited=self._waited)
            self._sent += len(part.chunk)
            if self._ends is not None:
                self._ends.add(part.chunk)
        if part.end_of_stream:
            self._pass_end()
        if self._restorer is not None:
            return self._restored(part, self._restorer)
        if self._modes[1] is not BodyMode.FULL_DUPLEX:
            return (_RESPONSE_PIECE_PASSED,)
        return _streamed(Phase.RESPONSE, part.chunk, end_of_stream=part.end_of_stream)

    def _restored(self, part: BodyPart, restorer: Restorer) -> Replies:
        """What goes on for a piece of an answer that may tell of a model."""
        mode = self._modes[1]
        chunk = restorer.take(part.chunk, is_last=part.end_of_stream or mode in _BUFFERED)
        if mode is not BodyMode.FULL_DUPLEX:
            # Each piece is owed an answer, an empty one where all of it is held.
            return (encode_answer(BodyAnswer(Phase.RESPONSE, chunk)),)
        if not chunk and not part.end_of_stream:
            return _NOTHING
        return _streamed(Phase.RESPONSE, chunk, end_of_stream=part.end_of_stream)

    def _pass_end(self) -> None:
        """The answer passed to its end."""
        if self._end is None:
            if self._picked is not None:
                self._finish(self._status)
            self._end = End.WHOLE

    def _finish(self, status: int) -> None:
        """Tell what became of the request."""
        assert self._picked is not None  # nothing else is in flight
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
            )
        )

    def _release(self) -> None:
        """Give the memory of the body back."""
        self._desk.held -= self._held
        self._held = 0
        self._pieces = []


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
    if not removed and not picked.why:
        return NO_CHANGES
    explained = (SetHeader(EXPLAIN_HEADER, picked.why),) if picked.why else ()
    return Changes(set=explained, remove=removed)


def _streamed(phase: Phase, body: bytes, *, end_of_stream: bool) -> Replies:
    """A body, or a piece of it, as pieces that Envoy takes."""
    pieces = tuple(chunks_of(body))
    last = len(pieces) - 1
    return tuple(
        b"".join(encode_piece(phase, piece, end_of_stream=end_of_stream and number == last))
        for number, piece in enumerate(pieces)
    )
