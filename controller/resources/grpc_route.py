"""GRPCRoute of the group gateway.networking.k8s.io, version 1.6.1, experimental channel.

Filters and backends are those of an HTTPRoute, fewer of them; what they share is said once, in `gateway_api`.
"""

import re
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from controller.resources.gateway_api import (
    GROUP,
    DefaultGateways,
    HTTPBackendRef,
    HTTPHeaderMatch,
    HTTPRoute,
    HTTPRouteFilter,
    ParentReferences,
    RequestRule,
    distinct_rules,
    few_matches,
    filters_go_together,
)
from controller.resources.meta import Model, Resource
from controller.resources.scalars import Broken, Hostname, quoted, unique_by

_SERVICE: Final = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class GRPCMethodMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Field(strict=True, max_length=1024)] | None = None
    method: Annotated[str, Field(strict=True, max_length=1024)] | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.service is None and self.method is None:
            raise Broken("missing, accepted is a service, a method or both", "service")
        if self.type != "Exact":
            return self
        for field, value, name in (("service", self.service, _SERVICE), ("method", self.method, _METHOD)):
            if value is not None and not name.fullmatch(value):
                accepted = "a name of letters, digits and '_'" + (", with dots between" if field == "service" else "")
                raise Broken(f"found {quoted(value)}, type Exact accepts {accepted}", field)
        return self


class GRPCRouteMatch(Model):
    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16), AfterValidator(unique_by("name"))] = ()


class GRPCRouteFilter(HTTPRouteFilter):
    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]


GRPCRouteFilters = Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16), AfterValidator(filters_go_together)]


class GRPCBackendRef(HTTPBackendRef):
    filters: GRPCRouteFilters = ()


class GRPCRouteRule(RequestRule):
    matches: Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64)] = ()
    """Without any, every call."""
    filters: GRPCRouteFilters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] = ()


class GRPCRouteSpec(Model):
    parent_refs: ParentReferences = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[
        tuple[GRPCRouteRule, ...], Field(max_length=16), AfterValidator(distinct_rules), AfterValidator(few_matches)
    ] = ()
    use_default_gateways: DefaultGateways | None = None


class GRPCRoute(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: GRPCRouteSpec


RequestRoute = HTTPRoute | GRPCRoute
"""Routes of single requests."""
