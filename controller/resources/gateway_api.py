"""Kinds of the group gateway.networking.k8s.io, version 1.6.1, experimental channel.

All fields are here, also those that have no effect: what is not supported becomes a condition, which needs the field.
Rules that need an old object or the cluster are not here.
"""

from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from controller.resources.meta import Key, Model, Resource
from controller.resources.scalars import (
    AddressType,
    Broken,
    ControllerName,
    DnsLabel,
    DnsName,
    Duration,
    Flag,
    Group,
    HeaderName,
    HeaderValue,
    Hostname,
    Kind,
    Labels,
    Location,
    LongText,
    ObjectName,
    Origin,
    Port,
    PreciseHostname,
    Protocol,
    Text,
    UrlPath,
    is_address,
    is_hostname,
    is_url_path,
    qualified_keys,
    quoted,
    seconds,
    unique,
    unique_by,
    wildcard_stands_alone,
)

CONTROLLER_NAME: Final = "infergate.dev/gateway-controller"
"""`controllerName` of the GatewayClasses that are ours."""

GROUP = "gateway.networking.k8s.io"

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
CORSMethod = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]


class LabelSelectorRequirement(Model):
    key: Text
    operator: Text
    values: tuple[Text, ...] = ()


class LabelSelector(Model):
    match_labels: dict[Text, Text] = Field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class LocalParametersReference(Model):
    group: Group
    kind: Kind
    name: ObjectName


class ParametersReference(LocalParametersReference):
    namespace: DnsLabel | None = None


class ObjectReference(Model):
    group: Group
    kind: Kind
    name: ObjectName
    namespace: DnsLabel | None = None


class SecretObjectReference(Model):
    group: Group = ""
    kind: Kind = "Secret"
    name: ObjectName
    namespace: DnsLabel | None = None


class BackendObjectReference(Model):
    group: Group = ""
    kind: Kind = "Service"
    name: ObjectName
    namespace: DnsLabel | None = None
    port: Port | None = None

    @model_validator(mode="after")
    def _service_has_port(self) -> Self:
        if self.group == "" and self.kind == "Service" and self.port is None:
            raise Broken("missing, a reference to a Service needs the number of a port", "port")
        return self


# GatewayClass


class GatewayClassSpec(Model):
    controller_name: ControllerName
    parameters_ref: ParametersReference | None = None
    description: Annotated[str, Field(strict=True, max_length=64)] | None = None


class GatewayClass(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)
    cluster_scoped: ClassVar[bool] = True

    spec: GatewayClassSpec


# Gateway


class RouteGroupKind(Model):
    group: Group = GROUP
    kind: Kind


class RouteNamespaces(Model):
    from_: Literal["All", "Selector", "Same"] = Field(default="Same", alias="from")
    selector: LabelSelector | None = None


class AllowedRoutes(Model):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] = ()


class ListenerTLSConfig(Model):
    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] = ()
    options: Annotated[dict[Text, LongText], Field(max_length=16)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _terminates_with_something(self) -> Self:
        if self.mode == "Terminate" and not self.certificate_refs and not self.options:
            raise Broken("missing, mode Terminate needs certificateRefs or options", "certificateRefs")
        return self


class Listener(Model):
    name: DnsName
    hostname: Hostname | None = None
    port: Port
    protocol: Protocol
    tls: ListenerTLSConfig | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()

    @model_validator(mode="after")
    def _fields_fit_protocol(self) -> Self:
        if self.protocol in ("HTTP", "TCP", "UDP") and self.tls is not None:
            raise Broken(f"found, but protocol {self.protocol} takes none", "tls")
        if self.protocol == "HTTPS" and self.tls is not None and self.tls.mode != "Terminate":
            raise Broken(f"found {quoted(self.tls.mode)}, protocol HTTPS accepts Terminate", "tls", "mode")
        if self.protocol == "TLS" and self.tls is None:
            raise Broken("missing, protocol TLS needs its mode", "tls")
        if self.protocol in ("TCP", "UDP") and self.hostname is not None:
            raise Broken(f"found {quoted(self.hostname)}, but protocol {self.protocol} takes none", "hostname")
        return self


def _distinct_listeners(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    first: dict[tuple[int, str, str | None], str] = {}
    for index, item in enumerate(listeners):
        place = (item.port, item.protocol, item.hostname)
        if place in first:
            host = "any hostname" if item.hostname is None else quoted(item.hostname)
            where = f"port {item.port}, protocol {item.protocol} and {host}"
            raise Broken(f"found {where}, which listener {first[place]} has too", index)
        first[place] = item.name
    return listeners


Listeners = Annotated[
    tuple[Listener, ...],
    Field(min_length=1, max_length=64),
    AfterValidator(unique_by("name")),
    AfterValidator(_distinct_listeners),
]


class GatewaySpecAddress(Model):
    type: AddressType = "IPAddress"
    value: Annotated[str, Field(strict=True, max_length=253)] | None = None

    @model_validator(mode="after")
    def _value_fits_type(self) -> Self:
        if self.type == "IPAddress" and self.value is not None and not is_address(self.value):
            raise Broken(f"found {quoted(self.value)}, type IPAddress accepts an IPv4 or IPv6 address", "value")
        if self.type == "Hostname" and self.value is not None and not is_hostname(self.value):
            raise Broken(f"found {quoted(self.value)}, type Hostname accepts a lower-case hostname", "value")
        return self


def _distinct_addresses(addresses: tuple[GatewaySpecAddress, ...]) -> tuple[GatewaySpecAddress, ...]:
    seen: set[tuple[str, str]] = set()
    for index, item in enumerate(addresses):
        if item.type not in ("IPAddress", "Hostname") or item.value is None:
            continue
        if (item.type, item.value) in seen:
            raise Broken(f"found {quoted(item.value)} a second time", index, "value")
        seen.add((item.type, item.value))
    return addresses


class GatewayInfrastructure(Model):
    labels: Annotated[Labels, Field(max_length=8)] = Field(default_factory=dict)
    annotations: Annotated[dict[Text, LongText], Field(max_length=16), AfterValidator(qualified_keys)] = Field(
        default_factory=dict
    )
    parameters_ref: LocalParametersReference | None = None


class ListenerNamespaces(Model):
    from_: Literal["All", "Selector", "Same", "None"] = Field(default="None", alias="from")
    selector: LabelSelector | None = None


class AllowedListeners(Model):
    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendTLSValidation(Model):
    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=16)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class TLSConfig(Model):
    validation: FrontendTLSValidation | None = None


class TLSPortConfig(Model):
    port: Port
    tls: TLSConfig


class FrontendTLSConfig(Model):
    default: TLSConfig
    per_port: Annotated[tuple[TLSPortConfig, ...], Field(max_length=64), AfterValidator(unique_by("port"))] = ()


class GatewayBackendTLS(Model):
    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLSConfig(Model):
    backend: GatewayBackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class GatewaySpec(Model):
    gateway_class_name: ObjectName
    listeners: Listeners
    addresses: Annotated[tuple[GatewaySpecAddress, ...], Field(max_length=16), AfterValidator(_distinct_addresses)] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLSConfig | None = None
    default_scope: Literal["All", "None"] | None = None


class Gateway(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: GatewaySpec


# ListenerSet


class ParentGatewayReference(Model):
    group: Group = GROUP
    kind: Kind = "Gateway"
    name: ObjectName
    namespace: DnsLabel | None = None


class ListenerSetSpec(Model):
    parent_ref: ParentGatewayReference
    listeners: Listeners


class ListenerSet(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: ListenerSetSpec

    @property
    def parent(self) -> Key:
        """What it names as its parent, whether it exists or not."""
        parent = self.spec.parent_ref
        return Key(parent.group, parent.kind, parent.namespace or self.metadata.namespace, parent.name)


# HTTPRoute


class ParentReference(Model):
    group: Group = GROUP
    kind: Kind = "Gateway"
    namespace: DnsLabel | None = None
    name: ObjectName
    section_name: DnsName | None = None
    port: Port | None = None


def _distinct_parents(parents: tuple[ParentReference, ...]) -> tuple[ParentReference, ...]:
    """Several references to one parent all name a section, or all a port, or both, and differ in it.

    Source: Gateway API, CommonRouteSpec.parentRefs.
    """
    first: dict[tuple[str, ...], ParentReference] = {}
    seen: set[tuple[object, ...]] = set()
    for index, item in enumerate(parents):
        parent = (item.group, item.kind, item.namespace or "", item.name)
        other = first.setdefault(parent, item)
        for field, mine, theirs in (
            ("sectionName", item.section_name, other.section_name),
            ("port", item.port, other.port),
        ):
            if (mine is None) != (theirs is None):
                found = f"found {quoted(mine)}" if mine is not None else "missing"
                raise Broken(
                    f"{found}, accepted is one in all or in none of the references to {parent[3]}", index, field
                )
        place = (*parent, item.section_name, item.port)
        if place in seen:
            raise Broken(f"found {item.kind} {item.name} twice with the same sectionName and port", index)
        seen.add(place)
    return parents


ParentReferences = Annotated[tuple[ParentReference, ...], Field(max_length=32), AfterValidator(_distinct_parents)]
DefaultGateways = Literal["All", "None"]


class HTTPPathMatch(Model):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(strict=True, max_length=1024)] = "/"

    @model_validator(mode="after")
    def _value_is_path(self) -> Self:
        if self.type == "RegularExpression":
            return self
        if not self.value.startswith("/"):
            raise Broken(f"found {quoted(self.value)}, type {self.type} accepts a path that starts with '/'", "value")
        for part in ("//", "/./", "/../", "%2f", "%2F", "#"):
            if part in self.value:
                raise Broken(f"found {quoted(self.value)}, type {self.type} accepts no '{part}' in it", "value")
        for end in ("/..", "/."):
            if self.value.endswith(end):
                raise Broken(f"found {quoted(self.value)}, type {self.type} accepts no '{end}' at its end", "value")
        if not is_url_path(self.value):
            raise Broken(
                f"found {quoted(self.value)}, type {self.type} accepts the characters of a URL path, others as %XX",
                "value",
            )
        return self


class HTTPHeaderMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: HeaderValue


class HTTPQueryParamMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(strict=True, min_length=1, max_length=1024)]


class HTTPRouteMatch(Model):
    path: HTTPPathMatch = HTTPPathMatch()
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16), AfterValidator(unique_by("name"))] = ()
    query_params: Annotated[
        tuple[HTTPQueryParamMatch, ...], Field(max_length=16), AfterValidator(unique_by("name"))
    ] = ()
    method: Method | None = None


class HTTPHeader(Model):
    name: HeaderName
    value: HeaderValue


HTTPHeaders = Annotated[tuple[HTTPHeader, ...], Field(max_length=16), AfterValidator(unique_by("name"))]


class HTTPHeaderFilter(Model):
    set: HTTPHeaders = ()
    add: HTTPHeaders = ()
    remove: Annotated[tuple[Text, ...], Field(max_length=16), AfterValidator(unique)] = ()


class HTTPPathModifier(Model):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, Field(strict=True, max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, Field(strict=True, max_length=1024)] | None = None

    @model_validator(mode="after")
    def _field_fits_type(self) -> Self:
        fields = {"ReplaceFullPath": self.replace_full_path, "ReplacePrefixMatch": self.replace_prefix_match}
        for type_, value in fields.items():
            field = type_[0].lower() + type_[1:]
            if type_ == self.type and value is None:
                raise Broken(f"missing, type {self.type} needs it", field)
            if type_ != self.type and value is not None:
                raise Broken(f"found, but type {self.type} takes none", field)
        return self


class HTTPRequestRedirectFilter(Model):
    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class HTTPURLRewriteFilter(Model):
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None


class Fraction(Model):
    numerator: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
    denominator: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] = 100

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.numerator > self.denominator:
            raise Broken(f"found {self.numerator}, accepted is at most the denominator {self.denominator}", "numerator")
        return self


class HTTPRequestMirrorFilter(Model):
    backend_ref: BackendObjectReference
    percent: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
    fraction: Fraction | None = None

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.percent is not None and self.fraction is not None:
            raise Broken("found beside percent, accepted is one of them", "fraction")
        return self


_CorsHeaders = Annotated[tuple[HeaderName, ...], Field(max_length=64), AfterValidator(unique)]


class HTTPCORSFilter(Model):
    allow_origins: Annotated[
        tuple[Origin, ...], Field(max_length=64), AfterValidator(unique), AfterValidator(wildcard_stands_alone)
    ] = ()
    allow_credentials: Flag | None = None
    allow_methods: Annotated[
        tuple[CORSMethod, ...],
        Field(max_length=9),
        AfterValidator(unique),
        AfterValidator(wildcard_stands_alone),
    ] = ()
    allow_headers: Annotated[_CorsHeaders, AfterValidator(wildcard_stands_alone)] = ()
    expose_headers: _CorsHeaders = ()
    max_age: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] = 5


class GRPCAuthConfig(Model):
    allowed_headers: Annotated[tuple[Text, ...], Field(max_length=64), AfterValidator(unique)] = ()


class HTTPAuthConfig(Model):
    path: UrlPath | None = None
    allowed_headers: Annotated[tuple[Text, ...], Field(max_length=64), AfterValidator(unique)] = ()
    allowed_response_headers: Annotated[tuple[Text, ...], Field(max_length=64), AfterValidator(unique)] = ()


class ForwardBodyConfig(Model):
    max_size: Annotated[int, Field(strict=True, ge=0, le=65535)] | None = None
    """Bytes of the body that are sent along."""


class HTTPExternalAuthFilter(Model):
    protocol: Literal["HTTP", "GRPC"]
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBodyConfig | None = None

    @model_validator(mode="after")
    def _fields_fit_protocol(self) -> Self:
        for protocol, value in (("GRPC", self.grpc), ("HTTP", self.http)):
            if protocol == self.protocol and value is None:
                raise Broken(f"missing, protocol {self.protocol} needs it", protocol.lower())
            if protocol != self.protocol and value is not None:
                raise Broken(f"found, but protocol {self.protocol} takes none", protocol.lower())
        return self


class LocalObjectReference(Model):
    group: Group
    kind: Kind
    name: ObjectName


class HTTPRouteFilter(Model):
    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    cors: HTTPCORSFilter | None = None
    external_auth: HTTPExternalAuthFilter | None = None
    extension_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _field_fits_type(self) -> Self:
        fields: dict[str, tuple[str, Model | None]] = {
            "RequestHeaderModifier": ("requestHeaderModifier", self.request_header_modifier),
            "ResponseHeaderModifier": ("responseHeaderModifier", self.response_header_modifier),
            "RequestMirror": ("requestMirror", self.request_mirror),
            "RequestRedirect": ("requestRedirect", self.request_redirect),
            "URLRewrite": ("urlRewrite", self.url_rewrite),
            "CORS": ("cors", self.cors),
            "ExternalAuth": ("externalAuth", self.external_auth),
            "ExtensionRef": ("extensionRef", self.extension_ref),
        }
        for type_, (field, value) in fields.items():
            if type_ == self.type and value is None:
                raise Broken(f"missing, type {self.type} needs it", field)
            if type_ != self.type and value is not None:
                raise Broken(f"found, but type {self.type} takes none", field)
        return self


Filters = TypeVar("Filters", bound=tuple[HTTPRouteFilter, ...])


def filters_go_together(filters: Filters) -> Filters:
    once = ("CORS", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite")
    types: list[str] = []
    for index, item in enumerate(filters):
        if item.type in once and item.type in types:
            raise Broken(f"found {quoted(item.type)} a second time, accepted is one", index, "type")
        if {"RequestRedirect", "URLRewrite"} <= {item.type, *types}:
            raise Broken("found both RequestRedirect and URLRewrite, accepted is one of them", index, "type")
        types.append(item.type)
    return filters


HTTPRouteFilters = Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16), AfterValidator(filters_go_together)]


class HTTPBackendRef(BackendObjectReference):
    weight: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1
    filters: HTTPRouteFilters = ()


class HTTPRouteTimeouts(Model):
    request: Duration | None = None
    backend_request: Duration | None = None

    @model_validator(mode="after")
    def _backend_within_request(self) -> Self:
        if self.request is None or self.backend_request is None:
            return self
        if 0 < seconds(self.request) < seconds(self.backend_request):
            raise Broken(
                f"found {self.backend_request}, accepted is at most the request's {self.request}", "backendRequest"
            )
        return self


class HTTPRouteRetry(Model):
    codes: Annotated[tuple[Annotated[int, Field(strict=True, ge=400, le=599)], ...], AfterValidator(unique)] = ()
    attempts: Annotated[int, Field(strict=True, ge=1)] | None = None
    backoff: Duration | None = None


class CookieConfig(Model):
    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Model):
    session_name: Annotated[str, Field(strict=True, max_length=128)] | None = None
    absolute_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None

    @model_validator(mode="after")
    def _cookie_is_complete(self) -> Self:
        if self.cookie_config is None:
            return self
        if self.type != "Cookie":
            raise Broken(f"found, but type {self.type} takes none", "cookieConfig")
        if self.cookie_config.lifetime_type == "Permanent" and self.absolute_timeout is None:
            raise Broken("missing, a cookie with lifetimeType Permanent needs it", "absoluteTimeout")
        return self


class RequestRule(Model):
    """What rules about single requests have in common, whatever requests are called."""

    name: DnsName | None = None
    matches: Annotated[tuple[Model, ...], Field(max_length=64)] = ()
    filters: HTTPRouteFilters = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    session_persistence: SessionPersistence | None = None


class HTTPRouteRule(RequestRule):
    matches: Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64)] = (HTTPRouteMatch(),)
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None

    @model_validator(mode="after")
    def _redirect_has_no_backends(self) -> Self:
        if self.backend_refs and any(item.request_redirect for item in self.filters):
            raise Broken("found beside a RequestRedirect filter, accepted is one of them", "backendRefs")
        return self

    @model_validator(mode="after")
    def _prefix_is_replaced_where_one_matches(self) -> Self:
        if len(self.matches) == 1 and self.matches[0].path.type == "PathPrefix":
            return self
        places: list[tuple[Location, HTTPRouteFilter]]
        places = [(("filters", index), item) for index, item in enumerate(self.filters)]
        for number, backend in enumerate(self.backend_refs):
            places += [(("backendRefs", number, "filters", index), item) for index, item in enumerate(backend.filters)]
        for place, item in places:
            for field, modifier in (("requestRedirect", item.request_redirect), ("urlRewrite", item.url_rewrite)):
                if modifier and modifier.path and modifier.path.replace_prefix_match is not None:
                    found = "found, but the rule's matches are not one PathPrefix"
                    raise Broken(found, *place, field, "path", "replacePrefixMatch")
        return self


Rules = TypeVar("Rules", bound=tuple[RequestRule, ...])


def distinct_rules(rules: Rules) -> Rules:
    names: set[str] = set()
    for index, item in enumerate(rules):
        if item.name is None:
            continue
        if item.name in names:
            raise Broken(f"found {quoted(item.name)}, which another rule has too", index, "name")
        names.add(item.name)
    return rules


def few_matches(rules: Rules) -> Rules:
    total = sum(len(item.matches) for item in rules)
    if total > 128:
        raise Broken(f"found {total} matches in all rules together, accepted are at most 128")
    return rules


class HTTPRouteSpec(Model):
    parent_refs: ParentReferences = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[
        tuple[HTTPRouteRule, ...],
        Field(min_length=1, max_length=16),
        AfterValidator(distinct_rules),
        AfterValidator(few_matches),
    ] = (HTTPRouteRule(),)
    use_default_gateways: DefaultGateways | None = None


class HTTPRoute(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: HTTPRouteSpec


# ReferenceGrant


class ReferenceGrantFrom(Model):
    group: Group
    kind: Kind
    namespace: DnsLabel


class ReferenceGrantTo(Model):
    group: Group
    kind: Kind
    name: ObjectName | None = None
    """None grants all objects of the kind."""


class ReferenceGrantSpec(Model):
    from_: Annotated[tuple[ReferenceGrantFrom, ...], Field(min_length=1, max_length=16)] = Field(alias="from")
    to: Annotated[tuple[ReferenceGrantTo, ...], Field(min_length=1, max_length=16)]


class ReferenceGrant(Resource):
    group: ClassVar[str] = GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    spec: ReferenceGrantSpec
