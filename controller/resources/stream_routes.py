"""Routes of connections and datagrams, in every version that the definitions of Gateway API 1.6.1 serve.

The older versions take more: a TLSRoute of v1alpha2 may be without hostnames, and several rules are accepted.
"""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from controller.resources.gateway_api import GROUP, BackendObjectReference, DefaultGateways, ParentReferences
from controller.resources.meta import Model, Resource
from controller.resources.scalars import Broken, DnsName, Hostname, is_address, quoted


class BackendRef(BackendObjectReference):
    weight: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1


class StreamRule(Model):
    name: DnsName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


def _distinct_rules(rules: tuple[StreamRule, ...]) -> tuple[StreamRule, ...]:
    names: set[str] = set()
    for index, item in enumerate(rules):
        if item.name is not None and item.name in names:
            raise Broken(f"found {quoted(item.name)}, which another rule has too", index, "name")
        names |= {item.name} if item.name else set()
    return rules


def _no_addresses(hostnames: tuple[str, ...]) -> tuple[str, ...]:
    for index, item in enumerate(hostnames):
        if is_address(item):
            raise Broken(f"found {quoted(item)}, accepted is a hostname, clients send no address as a name", index)
    return hostnames


class StreamRouteSpec(Model):
    parent_refs: ParentReferences = ()
    rules: Annotated[tuple[StreamRule, ...], Field(min_length=1, max_length=16), AfterValidator(_distinct_rules)]
    use_default_gateways: DefaultGateways | None = None


class TLSRouteSpec(StreamRouteSpec):
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024), AfterValidator(_no_addresses)] = ()


class StreamRoute(Resource):
    """What the three kinds have in common."""

    group: ClassVar[str] = GROUP

    spec: StreamRouteSpec

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if not self.api_version.endswith("/v1alpha2") and len(self.spec.rules) > 1:
            raise Broken(f"found {len(self.spec.rules)} rules, accepted is one", "spec", "rules")
        return self


class TLSRoute(StreamRoute):
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha3", "v1alpha2")

    spec: TLSRouteSpec

    @model_validator(mode="after")
    def _has_hostnames(self) -> Self:
        if not self.api_version.endswith("/v1alpha2") and not self.spec.hostnames:
            raise Broken("missing, a TLSRoute needs at least one", "spec", "hostnames")
        return self


class TCPRoute(StreamRoute):
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")


class UDPRoute(StreamRoute):
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")
