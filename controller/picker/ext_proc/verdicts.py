"""What the picker decides of a request, before it is put into messages."""

from dataclasses import dataclass

from controller.extproc.messages import Action, Changes, Immediate, SetHeader
from controller.picker.answers import ErrorAnswer, Refusal
from controller.picker.director import Chosen
from controller.picker.requests import PickRequest


@dataclass(frozen=True, slots=True)
class Picked:
    """The endpoints that serve a request, in order."""

    request: PickRequest
    chosen: Chosen
    why: bytes = b""

    @property
    def endpoints(self) -> str:
        """As the gateway reads them: joined by commas."""
        return ",".join(endpoint.address for endpoint in self.chosen)


@dataclass(frozen=True, slots=True)
class Answered:
    """The client's answer comes from the picker."""

    immediate: Immediate


Verdict = Picked | Answered


class Verdicts:
    """Makes verdicts. See `Answers`."""

    def picked(self, request: PickRequest, chosen: Chosen, why: bytes) -> Verdict:
        """See `Answers`."""
        return Picked(request, chosen, why)

    def refused(self, request: PickRequest, refusal: ErrorAnswer, why: bytes) -> Verdict:
        """See `Answers`."""
        return refusal_of(refusal, method=request.method, path=request.path, why=why)

    def listed(self, models: bytes) -> Verdict:
        """See `Answers`."""
        return Answered(_immediate(200, models, [(b"content-type", b"application/json")], details="models_listed"))


def refusal_of(refusal: ErrorAnswer, *, method: str, path: str, why: bytes = b"") -> Answered:
    """An error for the client, in the shape of the API that has the path."""
    headers = list(refusal.headers)
    details = refusal.outcome.value if isinstance(refusal, Refusal) else f"infergate_{refusal.status}"
    if why:
        headers.append((b"x-infergate-explain", why))
    body = b"" if method == "HEAD" else refusal.body(path)
    return Answered(_immediate(refusal.status, body, headers, details=details))


def _immediate(status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, details: str) -> Immediate:
    changes = Changes(set=tuple(SetHeader(name.decode(), value, Action.OVERWRITE) for name, value in headers))
    return Immediate(status, body, changes, details)
