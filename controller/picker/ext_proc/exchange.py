"""One exchange of HTTP, as a gateway shows it part by part, and what the picker answers to each.

No input or output is done here: parts come in, and messages go out. Headers of a request are answered when the whole
body is there, since the choice depends on the prompt. Where the gateway holds the body back until then, or sends none,
they are answered at once.

Source: envoy/service/ext_proc/v3/external_processor.proto; endpoint picker protocol 1.0.0.
"""

from collections.abc import Awaitable, Mapping
from enum import Enum, auto
from typing import Final

from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    EXPLANATION_KEY,
    MODEL_KEY,
    OWN_NAMESPACE,
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
    Part,
    Phase,
    Received,
    SetHeader,
    TrailersAnswer,
)
from controller.headers import ENDPOINT_HEADER
from controller.picker.answers import Outcome, Refusal
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.intake import Intake, intake_of
from controller.picker.ext_proc.renaming import Naming, changes_of, naming_of
from controller.picker.ext_proc.replies import BUFFERED, NOTHING, Replies, streamed
from controller.picker.ext_proc.response import Response
from controller.picker.ext_proc.verdicts import Answered, Picked, Verdict, refusal_of
from controller.picker.prompt import KEPT

_TOO_LARGE: Final = Refusal(Outcome.TOO_LARGE, 413, "the body is larger than the endpoint picker can hold")
_NO_ROOM: Final = Refusal(Outcome.NO_ROOM, 429, "the bodies of other requests take all the memory", 1)
_FULL_DUPLEX: Final = (BodyMode.FULL_DUPLEX, BodyMode.FULL_DUPLEX)
"""What the endpoint picker protocol asks of gateways, which older ones do not say."""
_AT_ONCE: Final = (BodyMode.NONE, BodyMode.STREAMED)
"""Modes in which the headers have gone on before there is a body."""
_REQUEST_PASSED: Final = encode_answer(HeadersAnswer(Phase.REQUEST))
_REQUEST_PIECE_PASSED: Final = encode_answer(BodyAnswer(Phase.REQUEST))
_REQUEST_TRAILERS_PASSED: Final = encode_answer(TrailersAnswer(Phase.REQUEST))


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
        self._is_answered = False
        """Whether the picker answered the client itself."""
        self._response: Response | None = None

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
            return self._response_part(part, received)
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
        self._response = self._response_to(verdict)
        replies = self._picked_replies(verdict)
        self._pieces = []
        return replies

    def overflows(self, size: int) -> Replies:
        """What is answered when so many bytes of a part find no memory; nothing where it is no body of a request."""
        if self._stage is not _Stage.READING:
            return NOTHING
        return self._refuse(_TOO_LARGE if self._size + size > self._desk.body_memory else _NO_ROOM)

    def sent(self) -> None:
        """The answers to the request are gone, and its body with them."""
        if self._held and self._stage not in (_Stage.READING, _Stage.WAITING):
            self._release()

    def close(self, *, end: End | None = None) -> None:
        """Let everything go. `end` says why, where it is not what was seen."""
        self._release()
        self._desk.ended[end or self._end] += 1
        if self._response is not None:
            self._response.close()
        self._stage = _Stage.OVER

    @property
    def _end(self) -> End:
        """How it ended, by what was seen."""
        if self._is_answered:
            return End.ANSWERED
        if self._response is not None and self._response.is_whole:
            return End.WHOLE
        if self._response is not None and self._response.is_cut:
            return End.CUT
        return End.EMPTY if self._stage is _Stage.NEW else End.WITHOUT_RESPONSE

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
        return (_REQUEST_PASSED,) if self._modes[0] is not BodyMode.FULL_DUPLEX else NOTHING

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
        return NOTHING

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
            return NOTHING
        return (_REQUEST_PIECE_PASSED,) if isinstance(part, BodyPart) else (_REQUEST_TRAILERS_PASSED,)

    def _answer(self, answered: Answered) -> Replies:
        self._release()
        self._stage = _Stage.OVER
        self._is_answered = True
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
        if mode in BUFFERED:
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
            replies += streamed(Phase.REQUEST, body, end_of_stream=not self._has_trailers)
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

    def _response_part(self, part: Part, received: Received) -> Replies:
        if self._stage is _Stage.NEW:
            raise MessageUnreadable("a response comes after its request")
        if self._stage is not _Stage.ANSWERING:
            # The gateway may answer by itself, a request that waits for its verdict as well.
            self._stage = _Stage.ANSWERING
            self._release()
        self._response = self._response or self._response_to(None)
        return self._response.take(part, received)

    def _response_to(self, picked: Picked | None) -> Response:
        return Response(self._desk, picked, naming=self._naming, mode=self._modes[1], started=self._started)

    def _release(self) -> None:
        """Give the memory of the body back."""
        self._desk.held -= self._held
        self._held = 0
        self._pieces = []
