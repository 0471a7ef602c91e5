"""What it changes of a request that it is given another model than the one that it names."""

from dataclasses import dataclass
from typing import Final

from controller.extproc.messages import BodyMode, Changes, SetHeader
from controller.picker.ext_proc.intake import Intake
from controller.picker.ext_proc.model_places import Place, place_of
from controller.picker.ext_proc.restoring import Restorer, restorer_of
from controller.picker.requests import TargetOf

_LENGTH: Final = "content-length"
_ENCODINGS: Final = "accept-encoding"


@dataclass(frozen=True, slots=True)
class Naming:
    """The model that a body names, and the one that it is given."""

    place: Place
    target: str
    """Empty where it keeps its own."""
    is_changed: bool
    """Whether the body is to name another one."""

    @property
    def model(self) -> str:
        return self.place.model

    def body(self, body: bytes) -> bytes:
        """What goes on for a body."""
        return self.place.renamed(body, self.target)

    def restorer(self, headers: dict[str, bytes], *, method: str) -> Restorer | None:
        """What gives the answer with these headers the name that was asked for; None where that cannot be."""
        return restorer_of(headers, model=self.model) if self.is_changed and method != "HEAD" else None


def naming_of(intake: Intake, body: bytes, *, pool: str, target_of: TargetOf) -> Naming | None:
    """None where a whole body names no model."""
    place = place_of(intake.path, intake.headers.get(b"content-type", b"").decode("latin-1"), body)
    if place is None:
        return None
    target = target_of(pool, place.model, intake.headers)
    return Naming(place, target, is_changed=bool(target) and target != place.model)


def changes_of(changes: Changes, intake: Intake, *, size: int, mode: BodyMode) -> Changes:
    """Changes of headers that go with a body of another size, beside those that there are anyway.

    Envoy takes a buffered body of another length than the header says for a mistake, and has no header elsewhere. The
    model server is asked for no compression: the name could not be put back.
    """
    removed, told = list(changes.remove), list(changes.set)
    if _ENCODINGS.encode() in intake.headers:
        removed.append(_ENCODINGS)
    if _LENGTH.encode() in intake.headers:
        if mode is BodyMode.BUFFERED_PARTIAL:
            removed.append(_LENGTH)
        else:
            told.append(SetHeader(_LENGTH, b"%d" % size))
    return Changes(tuple(told), tuple(removed))
