"""What is attached to what, and what is wrong with it.

Children name parents by key. A Condition says what the specification would have written into a status.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from controller.ir.policies import ClientValidation
from controller.ir.streams import Opening, StreamRule
from controller.ir.types import Case, Certificate, Upstream
from controller.pools import Pool
from controller.resources.meta import Key
from controller.resources.parameters import NO_PARAMETERS, GatewayParametersSpec
from controller.topology.protocols import opening_of


@dataclass(frozen=True, order=True)
class Condition:
    """One condition of a status, without the times that only a writer knows."""

    type: str
    status: bool | None
    """None is Unknown."""
    reason: str
    message: str = ""


@dataclass(frozen=True)
class ListenerState:
    """One listener of a Gateway, its own or that of a ListenerSet."""

    owner: Key
    """The Gateway or ListenerSet whose spec it is in. Names are unique in there."""
    name: str
    port: int
    protocol: str
    hostname: str | None
    """Lower-case; None accepts any host."""
    certificates: tuple[Certificate, ...]
    supported_kinds: tuple[tuple[str, str], ...]
    """(group, kind) of the routes that may attach and are supported."""
    conditions: tuple[Condition, ...]
    """Accepted, Conflicted, OverlappingTLSConfig, ResolvedRefs; sorted by type. Programmed is the data plane's."""
    attached_routes: int
    serves: bool
    """Whether requests are answered here: accepted, not in conflict, with at least one certificate where one is needed,
    and on a Gateway that is accepted."""
    is_passthrough: bool = False
    """Whether TLS ends at the backend."""
    client_validation: ClientValidation | None = None
    """None asks clients for no certificate."""

    @property
    def ends_tls(self) -> bool:
        """Whether connections go on without the TLS that they came with."""
        return self.protocol == "TLS" and not self.is_passthrough

    @property
    def opening(self) -> Opening:
        return opening_of(self.port, self.protocol)


@dataclass(frozen=True)
class DataPlaneState:
    """What a Gateway says of its own data plane. Where all share one, as on one machine, little of it has an effect."""

    uid: str = ""
    """Of the Gateway; empty for one that comes from a file."""
    class_name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """For every object of the data plane, sorted."""
    annotations: tuple[tuple[str, str], ...] = ()
    """As above."""
    parameters: GatewayParametersSpec = NO_PARAMETERS
    """The Gateway's own over those of its class, or these alone where its reference is broken."""


@dataclass(frozen=True)
class GatewayState:
    """One Gateway of a class of ours."""

    key: Key
    generation: int
    listeners: tuple[ListenerState, ...]
    """Its own in the order of the resource, then those of ListenerSets, the oldest set first."""
    conditions: tuple[Condition, ...]
    """Accepted, ResolvedRefs, IgnoredFields; sorted by type. Programmed is the data plane's to say."""
    serves: bool
    """Whether it has a data plane: accepted, with at least one listener that serves."""
    addresses: tuple[str, ...] = ()
    """IP addresses that the user asks for, in the order of the resource; empty leaves the choice to the data plane."""
    client_certificate: Certificate | None = None
    """Shown to backends that are spoken to in TLS."""
    data_plane: DataPlaneState = DataPlaneState()
    would_serve: tuple[ListenerState, ...] = ()
    """Listeners that only wait for the Gateway to be accepted, in the order of `listeners`."""

    @cached_property
    def by_owner(self) -> Mapping[Key, tuple[ListenerState, ...]]:
        """Its listeners by what has them: the Gateway itself, and each ListenerSet that it lets in."""
        found: dict[Key, list[ListenerState]] = {}
        for item in self.listeners:
            found.setdefault(item.owner, []).append(item)
        return {owner: tuple(items) for owner, items in found.items()}


@dataclass(frozen=True)
class ListenerSetState:
    """One ListenerSet that names a Gateway of ours. Its listeners are among the Gateway's, if that lets them in."""

    key: Key
    generation: int
    gateway: Key
    conditions: tuple[Condition, ...]
    """Accepted. Programmed is the data plane's to say."""


@dataclass(frozen=True)
class ClassState:
    """One GatewayClass of ours."""

    key: Key
    generation: int
    conditions: tuple[Condition, ...]
    parameters: GatewayParametersSpec = NO_PARAMETERS
    """Without fields where the reference to them is broken."""


@dataclass(frozen=True)
class ParentState:
    """A route's standing with one of its parents."""

    parent: dict[str, str | int]
    """The parentRef as the user wrote it, for the status."""
    owner: Key
    """The Gateway, or the ListenerSet of it, that the parentRef names."""
    gateway: Key
    listeners: tuple[tuple[str, tuple[str, ...]], ...]
    """(listener, hostnames on which the route is reachable there; `*` is any). Empty when nothing accepts it.

    Listeners that do not serve are among them. They stay when no rule of the route can be served, so that its requests
    answer 500 instead of falling to another route.
    """
    conditions: tuple[Condition, ...]
    """Accepted, ResolvedRefs, PartiallyInvalid, IgnoredFields; sorted by type."""


@dataclass(frozen=True)
class RouteState:
    """One route of requests that names a Gateway of ours."""

    key: Key
    generation: int
    parents: tuple[ParentState, ...]
    """In the order of parentRefs; parents that are not ours are left out."""
    hostnames: tuple[str, ...]
    """Its own, lower-case and sorted; `*` for any."""
    cases: tuple[Case, ...]
    """Its rules, resolved, in the order of the resource (rule, then match). Precedence is settled by `translate`."""
    created: str
    """Sorts routes by age: creation time as RFC 3339, then namespace and name."""


@dataclass(frozen=True)
class StreamRouteState:
    """One TLSRoute, TCPRoute or UDPRoute that names a Gateway of ours."""

    key: Key
    generation: int
    parents: tuple[ParentState, ...]
    """As a RouteState's. `*` is also for clients of TLS that name no host."""
    rule: StreamRule
    ending: StreamRule
    """The rule for connections whose TLS ended here."""
    created: str
    """As a RouteState's."""


@dataclass(frozen=True)
class PoolState:
    """One InferencePool that a route of ours refers to, or that is merely there."""

    key: Key
    generation: int
    pool: Pool
    parents: tuple[tuple[Key, tuple[Condition, ...]], ...]
    """(Gateway, conditions Accepted, ResolvedRefs, IgnoredFields) of each whose routes refer to the pool; sorted."""


@dataclass(frozen=True)
class PolicyState:
    """One PickerPolicy or BackendTLSPolicy."""

    key: Key
    generation: int
    ancestors: tuple[tuple[Key, tuple[Condition, ...]], ...]
    """Of a PickerPolicy (InferencePool, conditions Accepted, IgnoredFields) of each target, in the order of targetRefs;
    of a BackendTLSPolicy (Gateway, conditions Accepted, ResolvedRefs, IgnoredFields) of each that uses it, sorted."""


@dataclass(frozen=True)
class ObjectiveState:
    """One InferenceObjective."""

    key: Key
    generation: int
    conditions: tuple[Condition, ...]
    """Accepted."""


@dataclass(frozen=True)
class RewriteState:
    """One InferenceModelRewrite. What it does is in the pool that it is for."""

    key: Key
    generation: int
    conditions: tuple[Condition, ...]
    """Accepted, IgnoredFields, InvalidAnnotations; sorted by type."""


@dataclass(frozen=True)
class ModelState:
    """One InferenceModel. What it does is in the pool that it is for."""

    key: Key
    generation: int
    conditions: tuple[Condition, ...]
    """Accepted, IgnoredFields; sorted by type."""


@dataclass(frozen=True)
class BaseModel:
    """A base model with its adapters, as a namespace says."""

    namespace: str
    name: str
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class Topology:
    """All of it, each tuple sorted by key except where a field says otherwise."""

    classes: tuple[ClassState, ...]
    gateways: tuple[GatewayState, ...]
    routes: tuple[RouteState, ...]
    pools: tuple[PoolState, ...]
    upstreams: tuple[Upstream, ...]
    """Of every Service port that a rule uses and that has endpoints; maybe some that rules used before."""
    policies: tuple[PolicyState, ...] = ()
    objectives: tuple[ObjectiveState, ...] = ()
    rewrites: tuple[RewriteState, ...] = ()
    models: tuple[ModelState, ...] = ()
    base_models: tuple[BaseModel, ...] = ()
    """Oldest first."""
    stream_routes: tuple[StreamRouteState, ...] = ()
    stream_upstreams: tuple[Upstream, ...] = ()
    """Of every Service port that a route of connections uses and that has endpoints."""
    listener_sets: tuple[ListenerSetState, ...] = ()
