"""BackendTLSPolicy of the group gateway.networking.k8s.io: how a Gateway knows the backends that it speaks TLS to."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from controller.resources.gateway_api import GROUP, LocalObjectReference
from controller.resources.meta import Model, Resource
from controller.resources.scalars import (
    AbsoluteUri,
    Broken,
    DnsName,
    Group,
    Hostname,
    Kind,
    LongText,
    ObjectName,
    PreciseHostname,
    Text,
    quoted,
)


class PolicyTargetReference(Model):
    """What a policy applies to, in its own namespace."""

    group: Group
    kind: Kind
    name: ObjectName
    section_name: DnsName | None = None
    """Of a Service: the name of one of its ports. None: all of it."""


class SubjectAltName(Model):
    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: AbsoluteUri | None = None

    @model_validator(mode="after")
    def _field_fits_type(self) -> Self:
        for type_, field, value in (("Hostname", "hostname", self.hostname), ("URI", "uri", self.uri)):
            if type_ == self.type and value is None:
                raise Broken(f"missing, type {self.type} needs it", field)
            if type_ != self.type and value is not None:
                raise Broken(f"found, but type {self.type} takes none", field)
        return self


class BackendTLSPolicyValidation(Model):
    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    well_known_ca_certificates: Annotated[str, Field(strict=True, max_length=253)] | None = Field(
        default=None, alias="wellKnownCACertificates"
    )
    hostname: PreciseHostname
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] = ()

    @model_validator(mode="after")
    def _one_source_of_authorities(self) -> Self:
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            raise Broken("found beside caCertificateRefs, accepted is one of them", "wellKnownCACertificates")
        if not self.ca_certificate_refs and not self.well_known_ca_certificates:
            raise Broken("missing, accepted is this or wellKnownCACertificates", "caCertificateRefs")
        return self


def _distinct_targets(targets: tuple[PolicyTargetReference, ...]) -> None:
    """Several references to one target all name a section, each another one.

    Source: Gateway API, BackendTLSPolicySpec.targetRefs.
    """
    seen: dict[tuple[str, str, str], set[str]] = {}
    for index, item in enumerate(targets):
        sections = seen.setdefault((item.group, item.kind, item.name), set())
        section = item.section_name or ""
        if section in sections or (sections and "" in {section, *sections}):
            found = f"found {item.kind} {item.name} a second time"
            if not section or "" in sections:
                raise Broken(f"{found}, then each reference to it needs a sectionName", "targetRefs", index)
            raise Broken(f"{found} with sectionName {quoted(section)}", "targetRefs", index)
        sections.add(section)


class BackendTLSPolicySpec(Model):
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Field(min_length=1, max_length=16)]
    validation: BackendTLSPolicyValidation
    options: Annotated[dict[Text, LongText], Field(max_length=16)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        _distinct_targets(self.target_refs)
        return self


class BackendTLSPolicy(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha3")

    spec: BackendTLSPolicySpec
