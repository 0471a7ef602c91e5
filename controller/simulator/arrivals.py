"""The requests that arrived at a pod, for tests to look at."""

from collections import deque
from dataclasses import dataclass

_KEPT = 1000


@dataclass(slots=True)
class Arrival:
    """One request; the body itself is not kept."""

    method: str
    path: str
    """With the query."""
    raw_headers: list[tuple[bytes, bytes]]
    body_bytes: int = 0
    body_sha256: str = ""
    model: str | None = None
    status: int | None = None
    """None while there is no answer, and for ever after a reset."""
    aborted: bool = False
    """Whether the client left before the answer's end, or the pod cut it off."""

    @property
    def is_probe(self) -> bool:
        """Whether the picker asks on its own account, over and over."""
        return (b"user-agent", b"infergate-picker") in self.raw_headers

    def as_json(self) -> dict[str, object]:
        """Header names are lower-case; values of one name are joined by ", "."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.raw_headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return {
            "method": self.method,
            "path": self.path,
            "headers": headers,
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256,
            "model": self.model,
            "status": self.status,
            "aborted": self.aborted,
        }


def arrivals() -> deque[Arrival]:
    """The newest 1,000, oldest first."""
    return deque(maxlen=_KEPT)
