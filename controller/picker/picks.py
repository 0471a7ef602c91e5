"""What the picker answers NGINX: picks, and the news of their first bytes.

A request that carries the pool header, which nginx sets on all that clients send, is a pick whatever its path.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from controller.completions import FIRST_BYTES_PATH
from controller.picker.answers import (
    ErrorAnswer,
    Outcome,
    Refusal,
    answer_of_elsewhere,
    answer_of_models,
    answer_of_pick,
    answer_of_refusal,
)
from controller.picker.base_models import BaseModels
from controller.picker.choosing import Choosing
from controller.picker.completions import Completions
from controller.picker.director import Chosen, Director
from controller.picker.explain import header_of
from controller.picker.listing import answer_elsewhere, is_elsewhere, list_of_rule
from controller.picker.replay.recorder import Recorder
from controller.picker.requests import BodyPieces, Headers, NotFromGateway, PickRequest, is_pick, pick_request
from controller.picker.workers import NOBODY

_NOT_FROM_GATEWAY: Final = Refusal(Outcome.NOT_FROM_GATEWAY, 500, "the request did not come from the gateway")
_BASE_MODELS_PATH: Final = "/base-models"
"""Where nginx asks for the base models of what the pools serve: a JSON object by name, with an ETag."""
_FROM_GATEWAY: Final = frozenset({("POST", FIRST_BYTES_PATH), ("GET", _BASE_MODELS_PATH)})
"""Methods and paths of what nginx asks beside picks."""
_TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _HttpAnswers:
    """Answers as NGINX reads them."""

    def picked(self, request: PickRequest, chosen: Chosen, why: bytes) -> bytes:
        """See `Answers`."""
        return answer_of_pick(request, chosen, more=header_of(why) if why else b"")

    def refused(self, request: PickRequest, refusal: ErrorAnswer, why: bytes) -> bytes:
        """See `Answers`."""
        more = header_of(why) if why else b""
        return answer_of_refusal(refusal, method=request.method, path=request.path, more=more)

    def listed(self, models: bytes) -> bytes:
        """See `Answers`."""
        return answer_of_models(models)


HTTP_ANSWERS: Final = _HttpAnswers()


class Picks:
    """Answers picks, and takes what NGINX tells of the requests that it sent on. See `Exchange`."""

    def __init__(
        self,
        choosing: Choosing[bytes],
        *,
        director: Director,
        completions: Completions,
        clock: Callable[[], float],
        base_models: BaseModels,
        recorder: Recorder | None = None,
    ) -> None:
        self._choosing = choosing
        self._director = director
        self._completions = completions
        self._recorder = recorder
        self._base_models = base_models
        self._clock = clock

    def takes(self, method: str, path: str, headers: Headers) -> bool:
        """Whether NGINX asks."""
        return is_pick(headers) or is_elsewhere(headers) or (method, path) in _FROM_GATEWAY

    def answer(
        self, method: str, path: str, headers: Headers, body: BodyPieces, *, worker: int = NOBODY
    ) -> bytes | Awaitable[bytes]:
        """The answer to a whole request, which waits only where the pool is saturated."""
        if not is_pick(headers):
            if is_elsewhere(headers):
                self._director.count("", Outcome.LISTED)
                director = self._director
                return answer_elsewhere(method, path, headers, models_of=director.models, doubt=director.doubt)
            if path == _BASE_MODELS_PATH:
                return self._base_models.answer(headers.get(b"if-none-match", b""))
            self._completions.take_first_bytes(body.kept, now=self._clock())
            if self._recorder is not None:
                self._recorder.began(body.kept)
            return _TAKEN
        started = self._clock()
        try:
            request = pick_request(method, path, headers, body, target_of=self._director.target)
        except NotFromGateway:
            self._director.count("", Outcome.NOT_FROM_GATEWAY)
            return answer_of_refusal(_NOT_FROM_GATEWAY, method=method, path=path)
        request.worker = worker
        if self._director.is_listed_alone(request.pool):
            return self._list(request)
        answer = self._choosing.choose(request, started=started)
        if not isinstance(answer, bytes):
            body.drop()
        return answer

    def _list(self, request: PickRequest) -> bytes:
        """The models of a rule's pools, where somebody else picks for the one that was drawn; or sends NGINX there."""
        listed = list_of_rule(
            request.method, request.path, request.headers, pool=request.pool, models_of=self._director.models
        )
        if listed is None:
            return answer_of_elsewhere(request.then)
        self._director.count("", Outcome.LISTED)
        return answer_of_models(listed)

    def hung_up(self) -> None:
        """A client went away before its request was read; nothing of a feed that breaks off is taken."""
        self._director.count("", Outcome.HUNG_UP)
