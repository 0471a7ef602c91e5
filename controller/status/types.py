"""What status needs of a data plane, what it gives to whoever writes it, and the rows of a table of problems."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from controller.resources.meta import Key

Json = dict[str, Any]  # a piece of a status in Kubernetes' shape


class AddressType(StrEnum):
    IP = "IPAddress"
    HOSTNAME = "Hostname"


@dataclass(frozen=True, order=True)
class Address:
    """Where clients reach a Gateway."""

    type: AddressType
    value: str


@dataclass(frozen=True)
class Programmed:
    """What the data plane of one Gateway says of the newest version."""

    serving: bool
    """Whether that version is served."""
    addresses: tuple[Address, ...] = ()
    """In the order in which they shall be shown."""
    message: str = ""
    """Why it is not served, or what else a user should know; `2 of 3 instances` and the like."""
    reason: str = "Pending"
    """While it is not served: Pending, AddressNotAssigned, AddressNotUsable, NoResources or Invalid."""


@dataclass(frozen=True)
class StatusUpdate:
    """The status of one resource, before it is merged with what is there."""

    key: Key
    generation: int
    """Of the resource that the status speaks of."""
    status: Json
    """Conditions are without observedGeneration and lastTransitionTime."""


class Severity(IntEnum):
    """The higher the worse."""

    FINE = 0
    PENDING = 1
    """Not known yet."""
    WARNING = 2
    """Works, and not quite as written."""
    ERROR = 3
    """Does not work, or a part of it does not."""


@dataclass(frozen=True)
class Row:
    """One finding, or one resource that is as it should be."""

    severity: Severity
    kind: str
    name: str
    """`namespace/name`, or `name`; for a document that is no resource what is known of it."""
    place: str
    """`listener NAME`, `parent NAMESPACE/NAME` or `target NAMESPACE/NAME`; empty for the resource itself."""
    condition: str
    """`Type=Status/Reason`; `Rejected` for a document that is no resource."""
    message: str

    @property
    def text(self) -> str:
        """The finding in one line, without its severity."""
        subject = " ".join(part for part in (self.kind, self.name, self.place) if part)
        return ": ".join(part for part in (subject, self.condition, self.message) if part)
