"""Every reason of a condition that the specification names stands in a golden case, or below with why it does not.

Source: Gateway API v1.6.1, apis/v1: condition types and reasons, without those that are deprecated or reserved.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from controller.resources.kinds import MODELS

Json = Mapping[str, Any]  # Any: a part of a status

CASES: Final = Path(__file__).parent / "cases"

REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "GatewayClass": {
        "Accepted": "Accepted InvalidParameters Pending Unsupported",
        "SupportedVersion": "SupportedVersion UnsupportedVersion",
    },
    "Gateway": {
        "Accepted": "Accepted ListenersNotValid Pending UnsupportedAddress InvalidParameters",
        "InsecureFrontendValidationMode": "ConfigurationChanged",
        "Programmed": "Programmed Invalid NoResources AddressNotAssigned AddressNotUsable Pending",
        "ResolvedRefs": "ResolvedRefs RefNotPermitted InvalidClientCertificateRef ListenersNotResolved",
    },
    "Listener": {
        "Accepted": "Accepted PortUnavailable UnsupportedProtocol NoValidCACertificate UnsupportedValue",
        "Conflicted": "HostnameConflict ProtocolConflict NoConflicts",
        "OverlappingTLSConfig": "OverlappingHostnames OverlappingCertificates",
        "Programmed": "Programmed Invalid Pending",
        "ResolvedRefs": "ResolvedRefs InvalidCertificateRef InvalidRouteKinds RefNotPermitted InvalidCACertificateRef"
        " InvalidCACertificateKind",
    },
    "Route": {
        "Accepted": "Accepted NotAllowedByListeners NoMatchingListenerHostname NoMatchingParent UnsupportedValue"
        " Pending IncompatibleFilters",
        "PartiallyInvalid": "UnsupportedValue",
        "ResolvedRefs": "ResolvedRefs RefNotPermitted InvalidKind BackendNotFound UnsupportedProtocol",
    },
    "BackendTLSPolicy": {
        "Accepted": "Accepted Conflicted Invalid TargetNotFound NoValidCACertificate",
        "ResolvedRefs": "ResolvedRefs InvalidCACertificateRef InvalidKind",
    },
    "ListenerSet": {
        "Accepted": "Accepted NotAllowed ParentNotAccepted ListenersNotValid",
        "Programmed": "Programmed Invalid Pending",
    },
    "Listener of a ListenerSet": {
        "Accepted": "Accepted UnsupportedProtocol TooManyListeners PortUnavailable",
        "Conflicted": "HostnameConflict ProtocolConflict ListenerConflict",
        "Programmed": "Programmed Invalid Pending",
        "ResolvedRefs": "ResolvedRefs InvalidCertificateRef InvalidRouteKinds RefNotPermitted",
    },
}
"""Reasons by what has the condition and by its type."""

_ELSEWHERE = "cases leave out classes, tests/status and tests/topology have them"
_AT_ONCE = "is decided in the same turn of the loop"
_OF_A_SERVICE = "is the Service's to say, tests/control_plane and tests/dataplane have it"
_OF_A_REPORT = "in cases the data plane has said what it serves, tests/status has it"
_OF_A_PORT = "is nginx's to say when it opens ports, tests/status has it"

ABSENT: Final[Mapping[tuple[str, str, str], str]] = {
    ("GatewayClass", "Accepted", "Accepted"): _ELSEWHERE,
    ("GatewayClass", "Accepted", "InvalidParameters"): _ELSEWHERE,
    ("GatewayClass", "Accepted", "Pending"): _AT_ONCE,
    ("GatewayClass", "Accepted", "Unsupported"): "every class of the controller's name is taken",
    ("GatewayClass", "SupportedVersion", "SupportedVersion"): _ELSEWHERE,
    ("GatewayClass", "SupportedVersion", "UnsupportedVersion"): _ELSEWHERE,
    ("Gateway", "Accepted", "Pending"): _AT_ONCE,
    ("Gateway", "Programmed", "AddressNotAssigned"): _OF_A_SERVICE,
    ("Gateway", "Programmed", "NoResources"): "pods that find no room are Pending: they may find some yet",
    ("Gateway", "Programmed", "Pending"): _OF_A_REPORT,
    ("Listener", "Accepted", "PortUnavailable"): _OF_A_PORT,
    ("Listener", "OverlappingTLSConfig", "OverlappingCertificates"): "may be told, hostnames that overlap must be",
    ("Route", "Accepted", "Pending"): _AT_ONCE,
    ("ListenerSet", "Programmed", "Invalid"): "the conformance suite wants the reason of Accepted here",
    ("ListenerSet", "Programmed", "Pending"): _OF_A_REPORT,
    ("Listener of a ListenerSet", "Accepted", "PortUnavailable"): _OF_A_PORT,
    ("Listener of a ListenerSet", "Accepted", "TooManyListeners"): "listeners are not counted",
    ("Listener of a ListenerSet", "Conflicted", "ListenerConflict"): "the conformance suite wants the one that is lost",
    ("Listener of a ListenerSet", "Programmed", "Pending"): _OF_A_REPORT,
}
"""Why no case has them."""


def _expected() -> set[tuple[str, str, str]]:
    """Those of kinds that are read."""
    kinds = {model.__name__ for model in MODELS} | {"Listener", "Route"}
    return {
        (subject, type_, reason)
        for subject, types in REASONS.items()
        if subject.rpartition(" ")[2] in kinds
        for type_, reasons in types.items()
        for reason in reasons.split()
    }


def _in_cases() -> Iterator[tuple[str, str, str]]:
    for path in sorted(CASES.glob("*/status.yaml")):
        statuses = list(yaml.safe_load_all(path.read_text()))[-1] or {}
        for key, status in statuses.items():
            kind = key.partition(" ")[0]
            yield from _reasons("Route" if kind.endswith("Route") else kind, [status])
            yield from _reasons("Route" if kind.endswith("Route") else kind, status.get("parents", ()))
            yield from _reasons(kind, status.get("ancestors", ()))
            entry = "Listener" if kind == "Gateway" else f"Listener of a {kind}"
            yield from _reasons(entry, status.get("listeners", ()))


def _reasons(subject: str, places: Iterable[Json]) -> Iterator[tuple[str, str, str]]:
    return ((subject, item["type"], item["reason"]) for place in places for item in place.get("conditions", ()))


def test_every_reason_of_the_specification_is_in_a_case_or_told_why_not() -> None:
    missing = _expected() - set(_in_cases()) - ABSENT.keys()
    assert not missing, "add a case, or say in ABSENT why there is none"


def test_no_reason_that_is_said_to_be_absent_is_in_a_case() -> None:
    assert not ABSENT.keys() & set(_in_cases()), "take these out of ABSENT"


def test_absent_reasons_are_those_of_the_specification() -> None:
    known = {
        (subject, type_, reason)
        for subject, types in REASONS.items()
        for type_, reasons in types.items()
        for reason in reasons.split()
    }
    assert ABSENT.keys() <= known
