"""One exchange of HTTP, as a gateway shows it part by part, and what the picker answers to each.

No input or output is done here: parts come in, and messages go out. Headers of a request are answered when the whole
body is there, since the choice depends on the prompt. Where the gateway holds the body back until then, or sends none,
they are answered at once.

Source: envoy/service/ext_proc/v3/external_processor.proto; endpoint picker protocol 1.0.0.
"""

from collections.abc import Awaitable
from enum import Enum, auto
from typing import Final

from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    OWN_NAMESPACE,
    SESSION_KEY,
    BodyAnswer,
    BodyMode,
    BodyPart,
    HeadersAnswer,
    HeadersPart,
    MessageUnreadable,
    Part,
    Phase,
    Received,
)
from controller.picker.answers import Refusal
from controller.picker.ext_proc.body import Body
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.intake import Intake, intake_of
from controller.picker.ext_proc.picked import AT_ONCE, REQUEST_TRAILERS_PASSED, picked_replies
from controller.picker.ext_proc.renaming import Naming, naming_of
from controller.picker.ext_proc.replies import NOTHING, Replies
from controller.picker.ext_proc.response import Response
from controller.picker.ext_proc.verdicts import Answered, Picked, Verdict, refusal_of
from controller.picker.prompt import KEPT

_FULL_DUPLEX: Final = (BodyMode.FULL_DUPLEX, BodyMode.FULL_DUPLEX)
"""What the endpoint picker protocol asks of gateways, which older ones do not say."""
_REQUEST_PASSED: Final = encode_answer(HeadersAnswer(Phase.REQUEST))
_REQUEST_PIECE_PASSED: Final = encode_answer(BodyAnswer(Phase.REQUEST))


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
        self._body = Body(desk)
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
        assert self._intake is not None  # it came first
        replies = picked_replies(
            verdict,
            self._intake,
            naming=self._naming,
            body=self._body.whole(),
            mode=self._modes[0],
            has_trailers=self._has_trailers,
            reads_usage=self._desk.reads_usage(verdict.request.pool),
        )
        self._body.forget()
        return replies

    def overflows(self, size: int) -> Replies:
        """What is answered when so many bytes of a part find no memory; nothing where it is no body of a request."""
        if self._stage is not _Stage.READING:
            return NOTHING
        return self._refuse(self._body.overflow(size))

    def sent(self) -> None:
        """The answers to the request are gone, and its body with them."""
        if self._stage not in (_Stage.READING, _Stage.WAITING):
            self._body.release()

    def close(self, *, end: End | None = None) -> None:
        """Let everything go. `end` says why, where it is not what was seen."""
        self._body.release()
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
        if self._modes[0] in AT_ONCE:
            return self._choose()
        self._stage = _Stage.READING
        return (_REQUEST_PASSED,) if self._modes[0] is not BodyMode.FULL_DUPLEX else NOTHING

    def _request_piece(self, part: Part) -> Replies | Awaitable[Verdict]:
        if not isinstance(part, BodyPart):
            self._has_trailers = True
            return self._choose()
        refusal = self._body.hold(part.chunk)
        if refusal is not None:
            return self._refuse(refusal)
        self._is_cut = self._modes[0] is BodyMode.BUFFERED_PARTIAL and not part.end_of_stream
        if part.end_of_stream or self._modes[0] is not BodyMode.FULL_DUPLEX:
            # A buffered body comes at once, without its end where trailers follow or the buffer was full.
            return self._choose()
        return NOTHING

    def _refuse(self, refusal: Refusal) -> Replies:
        assert self._intake is not None  # the stage says so
        self._desk.state.director.refused_unread(self._desk.pool_name(), refusal, size=self._body.size)
        return self._answer(refusal_of(refusal, method=self._intake.method, path=self._intake.path))

    def _choose(self) -> Replies | Awaitable[Verdict]:
        assert self._intake is not None  # it came first
        desk = self._desk
        started = desk.clock()
        whole = self._body.whole()
        pool, director = desk.pool_name(), desk.state.director
        model = target = ""
        if whole and not self._is_cut and director.rewrites(pool):
            naming = naming_of(self._intake, whole, pool=pool, target_of=director.target)
            if naming is not None:
                self._naming, model, target = naming, naming.model, naming.target
        body = whole if self._body.size <= KEPT else b""
        request = self._intake.request(
            self._identity, pool=pool, body=body, size=self._body.size, model=model, target=target
        )
        answer = desk.choosing.choose(request, started=started)
        if isinstance(answer, Picked | Answered):
            return self.decided(answer)
        self._stage = _Stage.WAITING
        if self._modes[0] is not BodyMode.FULL_DUPLEX and not self._is_renamed:
            self._body.release()
        return answer

    @property
    def _is_renamed(self) -> bool:
        """Whether the body is to name another model."""
        return self._naming is not None and self._naming.is_changed

    def _late(self, part: Part) -> Replies:
        """A part of a request that was decided, or waits: a second end of the body, or a body that is not looked at."""
        if self._modes[0] is BodyMode.FULL_DUPLEX or self._stage is _Stage.WAITING:
            return NOTHING
        return (_REQUEST_PIECE_PASSED,) if isinstance(part, BodyPart) else (REQUEST_TRAILERS_PASSED,)

    def _answer(self, answered: Answered) -> Replies:
        self._body.release()
        self._stage = _Stage.OVER
        self._is_answered = True
        session = self._intake.session if self._intake is not None else ""
        metadata = {OWN_NAMESPACE: {SESSION_KEY: session}} if session else None
        return (encode_answer(answered.immediate, metadata=metadata),)

    def _response_part(self, part: Part, received: Received) -> Replies:
        if self._stage is _Stage.NEW:
            raise MessageUnreadable("a response comes after its request")
        if self._stage is not _Stage.ANSWERING:
            # The gateway may answer by itself, a request that waits for its verdict as well.
            self._stage = _Stage.ANSWERING
            self._body.release()
        self._response = self._response or self._response_to(None)
        return self._response.take(part, received)

    def _response_to(self, picked: Picked | None) -> Response:
        return Response(self._desk, picked, naming=self._naming, mode=self._modes[1], started=self._started)
