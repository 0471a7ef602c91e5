"""Fields that are read and not served yet, in one table, so that none is ignored in silence.

What happens depends on what ignoring the field would do:

- REFUSED: requests would be treated in another way than the user wrote, or less safely. Whatever has the field is not
  served: a rule or a backend's share answers 500, a listener or a Gateway is not accepted.
- IGNORED: the field adds something to what works without it (a limit, another try, stickiness). The resource is
  accepted and serves, and the condition `infergate.dev/IgnoredFields` names the field. PartiallyInvalid would be wrong:
  it says that a rule was dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel


class Effect(StrEnum):
    REFUSED = "refused"
    IGNORED = "ignored"


class Scope(StrEnum):
    """Where a field stands."""

    GATEWAY = "Gateway spec"
    LISTENER = "Gateway spec.listeners[]"
    ROUTE = "HTTPRoute spec"
    RULE_FILTER = "HTTPRoute spec.rules[].filters[].type"
    BACKEND_FILTER = "HTTPRoute spec.rules[].backendRefs[].filters[].type"
    BACKEND_TLS = "BackendTLSPolicy spec"


@dataclass(frozen=True)
class Unsupported:
    """One field, or one value of it."""

    scope: Scope
    field: str
    """Dotted path below the scope in Python's words; the type itself for filters."""
    effect: Effect
    harmless: tuple[object, ...] = (None,)
    """Values that ask for nothing."""

    @property
    def path(self) -> str:
        """The field as users write it."""
        head, *rest = self.field.split("_")
        return head + "".join(word[:1].upper() + word[1:] for word in rest)


TABLE: Final = (
    Unsupported(Scope.GATEWAY, "default_scope", Effect.IGNORED, (None, "None")),
    Unsupported(Scope.LISTENER, "tls.options", Effect.REFUSED, (None, {})),
    Unsupported(Scope.ROUTE, "use_default_gateways", Effect.IGNORED, (None, "None")),
    Unsupported(Scope.RULE_FILTER, "ExtensionRef", Effect.REFUSED),
    Unsupported(Scope.RULE_FILTER, "ExternalAuth", Effect.REFUSED),
    Unsupported(Scope.BACKEND_FILTER, "ExtensionRef", Effect.REFUSED),
    Unsupported(Scope.BACKEND_FILTER, "ExternalAuth", Effect.REFUSED),
    # Their names begin with the domain of the implementation that they are meant for: none is ours.
    Unsupported(Scope.BACKEND_TLS, "options", Effect.IGNORED, (None, {})),
)
"""Elsewhere, because the specification gives them a reason of their own: protocols of listeners (UnsupportedProtocol),
addresses (UnsupportedAddress), parametersRef (InvalidParameters), and appProtocol of Services (UnsupportedProtocol)."""

_BY_SCOPE: Final = {
    scope: tuple((row, tuple(row.field.split("."))) for row in TABLE if row.scope is scope) for scope in Scope
}
_FILTERS: Final = {
    scope: frozenset(row.field for row, _ in _BY_SCOPE[scope]) for scope in (Scope.RULE_FILTER, Scope.BACKEND_FILTER)
}


def fields_set(model: BaseModel, *, scope: Scope) -> Iterator[Unsupported]:
    """Rows of the table whose field is set in `model`."""
    for row, parts in _BY_SCOPE[scope]:
        value: object = model
        for part in parts:
            value = getattr(value, part, None)
        if value not in row.harmless:
            yield row


def is_unsupported_filter(type_: str, *, scope: Scope) -> bool:
    """Whether a filter of this type is refused at this place."""
    return type_ in _FILTERS[scope]
