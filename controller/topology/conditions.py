"""Conditions as the specifications name them, and how several become one.

Sources: Gateway API v1.6, condition types and reasons of GatewayClass, Gateway, Listener and Route; Inference Extension
v1.6, those of InferencePool.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from controller.topology.types import Condition as Condition

ACCEPTED: Final = "Accepted"
CONFLICTED: Final = "Conflicted"
CONTROLLER: Final = "infergate.dev/Controller"
"""Ours: on entries of a list that several controllers write and that has no field for their names. The message is the
name of the controller whose entry it is."""
IGNORED_FIELDS: Final = "infergate.dev/IgnoredFields"
"""Ours: True while the resource has fields that are read but have no effect. Absent otherwise."""
INSECURE_FRONTEND: Final = "InsecureFrontendValidationMode"
INVALID_ANNOTATIONS: Final = "infergate.dev/InvalidAnnotations"
"""Ours: True while annotations of the resource cannot be understood, and have no effect. Absent otherwise."""
OVERLAPPING_TLS: Final = "OverlappingTLSConfig"
PARTIALLY_INVALID: Final = "PartiallyInvalid"
PROGRAMMED: Final = "Programmed"
RESOLVED_REFS: Final = "ResolvedRefs"
SUPPORTED_VERSION: Final = "SupportedVersion"

LONGEST_MESSAGE: Final = 4096
"""Characters of a message; the API server refuses more than 32,768, and nobody reads so many."""


def accepted(message: str = "") -> Condition:
    return Condition(ACCEPTED, True, "Accepted", message)


def refused(reason: str, message: str) -> Condition:
    """Accepted is False for `reason`."""
    return Condition(ACCEPTED, False, reason, message)


def unsupported(message: str) -> Condition:
    """Accepted is False: a value that cannot be served."""
    return Condition(ACCEPTED, False, "UnsupportedValue", message)


def resolved_refs(message: str = "") -> Condition:
    return Condition(RESOLVED_REFS, True, "ResolvedRefs", message)


def unresolved(reason: str, message: str) -> Condition:
    """ResolvedRefs is False for `reason`."""
    return Condition(RESOLVED_REFS, False, reason, message)


def no_conflicts() -> Condition:
    return Condition(CONFLICTED, False, "NoConflicts")


def ignored(fields: Iterable[str]) -> Condition | None:
    """The condition that names fields without effect; None when there are none."""
    names = ", ".join(sorted(fields))
    if not names:
        return None
    return Condition(IGNORED_FIELDS, True, "UnsupportedValue", _cut(f"not supported yet and without effect: {names}"))


def invalid_annotations(problems: Sequence[str]) -> Condition | None:
    """The condition that tells what is wrong with annotations; None when nothing is."""
    if not problems:
        return None
    message = f"without effect: {'; '.join(dict.fromkeys(problems))}"
    return Condition(INVALID_ANNOTATIONS, True, "UnsupportedValue", _cut(message))


def elsewhere(fields: Iterable[str]) -> Condition | None:
    """The condition that names fields without effect where all Gateways share one nginx; None when there are none."""
    names = ", ".join(sorted(fields))
    if not names:
        return None
    return Condition(IGNORED_FIELDS, True, "UnsupportedValue", _cut(f"without effect on one machine: {names}"))


def merged(problems: Sequence[Condition]) -> Condition:
    """One condition for several problems of one type: the first one's reason, and every message once, in order."""
    if len(problems) == 1:
        return problems[0]
    messages = dict.fromkeys(problem.message for problem in problems)
    return Condition(problems[0].type, problems[0].status, problems[0].reason, _cut("; ".join(messages)))


def ordered(*conditions: Condition | None) -> tuple[Condition, ...]:
    """Those that are there, sorted by type."""
    return tuple(sorted((item for item in conditions if item is not None), key=lambda item: item.type))


def _cut(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 3] + "..."
