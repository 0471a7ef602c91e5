"""BackendTLSPolicies: which backends are spoken TLS to and how they are known, and what is wrong with a policy.

A backend has one policy: the oldest of those that name its port, else the oldest of those that name all of it. That one
keeps its claim while it has a mistake, and so a backend of a broken policy gets nothing instead of plain text.

Source: Gateway API, BackendTLSPolicySpec and PolicyStatus.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from controller.ir.policies import AltName, BackendTls
from controller.resources.backend_tls import BackendTLSPolicy, BackendTLSPolicyValidation, PolicyTargetReference
from controller.resources.core import Service
from controller.resources.inference import InferencePool
from controller.resources.meta import Key
from controller.topology.authorities import authorities
from controller.topology.conditions import (
    Condition,
    accepted,
    ignored,
    merged,
    ordered,
    refused,
    resolved_refs,
    unresolved,
)
from controller.topology.index import Index
from controller.topology.types import PolicyState
from controller.topology.unsupported import Scope, fields_set

MOST_ANCESTORS: Final = 16
"""Entries that the status of a policy takes, those of other controllers included."""

BackendPort = tuple[Key, int]
"""A Service and the number of its port, or an InferencePool and 0."""

Target = tuple[str, str, str, str]
"""(kind, namespace, name, name of a port or empty for all of it)."""


@dataclass(frozen=True)
class _Verdict:
    """What a policy comes to, wherever it applies."""

    tls: BackendTls | Condition
    """The condition Accepted where no connection is made."""
    resolved_refs: Condition
    ignored: Condition | None


@dataclass(frozen=True)
class BackendPolicies:
    """Every BackendTLSPolicy, by what it applies to."""

    index: Index
    verdicts: Mapping[Key, _Verdict]
    holders: Mapping[Target, Key]
    """The policy that each target has."""

    def of_service(self, service: Service, *, port: int) -> BackendTls | Condition | None:
        """How the endpoints of a port are spoken to; None in plain text; a condition says why not at all."""
        name = next((item.name for item in service.spec.ports if item.port == port), "")
        return self._holding(service.key, sections=(name, "") if name else ("",))

    def of_pool(self, pool: Key) -> BackendTls | Condition | None:
        """As above."""
        return self._holding(pool, sections=("",))

    def _holding(self, backend: Key, *, sections: Iterable[str]) -> BackendTls | Condition | None:
        places = ((backend.kind, backend.namespace, backend.name, section) for section in sections)
        holder = next((self.holders[place] for place in places if place in self.holders), None)
        return self.verdicts[holder].tls if holder is not None else None

    def states(self, *, uses: Mapping[Key, Iterable[BackendPort]], controller_name: str) -> tuple[PolicyState, ...]:
        """Every policy, with the Gateways that send requests to what it applies to; sorted by key.

        uses: backends by Gateway. A Gateway beyond those that the status has room for is left out; it does as the
        policy says all the same.
        """
        used = {gateway: frozenset(backends) for gateway, backends in uses.items()}
        states = []
        for policy in self.index.tls_policies:
            entries = (policy.status or {}).get("ancestors") or ()
            room = MOST_ANCESTORS - sum(item.get("controllerName") != controller_name for item in entries)
            ancestors = [
                (gateway, self._under(policy, targets))
                for gateway in sorted(used)
                if (targets := self._used_targets(policy, used[gateway]))
            ]
            states.append(PolicyState(policy.key, policy.metadata.generation, tuple(ancestors[: max(0, room)])))
        return tuple(sorted(states, key=lambda item: item.key))

    def _used_targets(
        self, policy: BackendTLSPolicy, used: frozenset[BackendPort]
    ) -> list[tuple[PolicyTargetReference, bool]]:
        """Targets of a policy that a Gateway uses, and whether each is there. One without the port counts as used."""
        found = []
        for reference in policy.spec.target_refs:
            key = Key(reference.group, reference.kind, policy.metadata.namespace, reference.name)
            ports = {port for backend, port in used if backend == key}
            number = _port_number(key, reference.section_name, index=self.index)
            if ports and (number is None or not reference.section_name or number in ports):
                found.append((reference, number is not None))
        return found

    def _under(
        self, policy: BackendTLSPolicy, targets: Iterable[tuple[PolicyTargetReference, bool]]
    ) -> tuple[Condition, ...]:
        verdict = self.verdicts[policy.key]
        problems = list(self._problems(policy, targets))
        if isinstance(verdict.tls, Condition):
            problems.append(verdict.tls)
        return ordered(merged(problems) if problems else accepted(), verdict.resolved_refs, verdict.ignored)

    def _problems(
        self, policy: BackendTLSPolicy, targets: Iterable[tuple[PolicyTargetReference, bool]]
    ) -> Iterator[Condition]:
        for reference, is_there in targets:
            shown = f"{reference.kind} {policy.metadata.namespace}/{reference.name}"
            holder = self.holders.get(_place(policy, reference))
            if not is_there:
                part = f" has no part {reference.section_name}" if reference.section_name else " does not exist"
                yield refused("TargetNotFound", shown + part)
            elif holder != policy.key:
                section = f", port {reference.section_name}," if reference.section_name else ""
                yield refused("Conflicted", f"{holder}, which is older, has {shown}{section} already")


def backend_policies(index: Index, *, system_authorities: bytes | None) -> BackendPolicies:
    """Every BackendTLSPolicy. system_authorities: certificates in PEM that the system trusts, None without any."""
    holders: dict[Target, Key] = {}
    verdicts = {}
    for policy in index.tls_policies:  # oldest first
        verdicts[policy.key] = _judged(policy, index=index, system_authorities=system_authorities)
        for reference in policy.spec.target_refs:
            holders.setdefault(_place(policy, reference), policy.key)
    return BackendPolicies(index, verdicts, holders)


def _place(policy: BackendTLSPolicy, reference: PolicyTargetReference) -> Target:
    return (reference.kind, policy.metadata.namespace, reference.name, reference.section_name or "")


def _port_number(target: Key, section: str | None, *, index: Index) -> int | None:
    """Number of the port that a section names, 0 for a whole target; None when it is not there."""
    name = (target.namespace, target.name)
    if (target.group, target.kind) == (InferencePool.group, "InferencePool"):
        return 0 if name in index.pools and not section else None
    service = index.services.get(name)
    if (target.group, target.kind) != (Service.group, "Service") or service is None:
        return None
    return 0 if not section else next((item.port for item in service.spec.ports if item.name == section), None)


def _judged(policy: BackendTLSPolicy, *, index: Index, system_authorities: bytes | None) -> _Verdict:
    validation = policy.spec.validation
    without_effect = ignored(row.path for row in fields_set(policy.spec, scope=Scope.BACKEND_TLS))
    problems: tuple[Condition, ...] = ()
    trusted: bytes | Condition
    if validation.ca_certificate_refs:
        trusted, problems = authorities(
            validation.ca_certificate_refs, namespace=policy.metadata.namespace, index=index
        )
        trusted = trusted or refused("NoValidCACertificate", merged(problems).message)
    else:
        trusted = _well_known(validation.well_known_ca_certificates or "", system_authorities=system_authorities)
    tls = trusted if isinstance(trusted, Condition) else _tls(policy.key, validation, authorities=trusted)
    references = unresolved(problems[0].reason, merged(problems).message) if problems else resolved_refs()
    return _Verdict(tls, references, without_effect)


def _well_known(name: str, *, system_authorities: bytes | None) -> bytes | Condition:
    """Reason: Invalid. Source: Gateway API, BackendTLSPolicyValidation.wellKnownCACertificates."""
    if name != "System":
        return refused("Invalid", f"validation.wellKnownCACertificates accepts System, found {name}")
    if not system_authorities:
        return refused("Invalid", "validation.wellKnownCACertificates: the system of the control plane has none")
    return system_authorities


def _tls(policy: Key, validation: BackendTLSPolicyValidation, *, authorities: bytes) -> BackendTls:
    names = (AltName(item.uri or item.hostname or "", item.type == "URI") for item in validation.subject_alt_names)
    distinct = tuple(dict.fromkeys(names))
    is_hostname_alone = distinct == (AltName(validation.hostname),)
    return BackendTls(policy, validation.hostname, authorities, names=() if is_hostname_alone else distinct)
