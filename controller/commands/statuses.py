"""Statuses of what a directory holds, as commands show them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import yaml

from controller.reconcile import State
from controller.resources.gateway_api import CONTROLLER_NAME, GROUP, Gateway, GatewayClass, HTTPRoute, ListenerSet
from controller.resources.grpc_route import GRPCRoute, RequestRoute
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.resources.stream_routes import StreamRoute
from controller.status.derive import derive
from controller.status.features import FEATURES
from controller.status.objects import status_list
from controller.status.rows import worst_first
from controller.status.shared_addresses import programmed_at
from controller.status.types import Json, Programmed, Row, Severity, StatusUpdate


def rows(state: State) -> tuple[Row, ...]:
    """Every finding, worst first, and a row for each resource without any."""
    found = (*worst_first(_updates(state), rejections=state.snapshot.rejections), *_dangling(state.snapshot))
    return tuple(sorted(found, key=lambda row: -row.severity))


def documents(state: State) -> Json:
    """The resources of ours with their statuses, as a Kubernetes `List`."""
    return status_list(_updates(state), snapshot=state.snapshot, now=datetime.now(UTC), controller_name=CONTROLLER_NAME)


def as_yaml(state: State) -> str:
    """`documents` as YAML."""
    return yaml.safe_dump(documents(state), sort_keys=False, allow_unicode=True)


def _dangling(snapshot: Snapshot) -> Iterator[Row]:
    """Gateways and routes that nobody serves, because what they refer to is not in the directory.

    In a cluster they may belong to somebody else; in a directory they are most likely misspelt.
    """
    classes = {item.metadata.name for item in snapshot.of(GatewayClass)}
    parents = {item.key for kind in (Gateway, ListenerSet) for item in snapshot.of(kind)}
    for gateway in snapshot.of(Gateway):
        name = gateway.spec.gateway_class_name
        if name not in classes:
            yield _nobody(gateway.key, f"spec.gatewayClassName: GatewayClass {name} does not exist")
    for item in snapshot.of(ListenerSet):
        if item.parent not in parents:
            yield _nobody(item.key, f"spec.parentRef: {item.parent} does not exist")
    routes: list[RequestRoute | StreamRoute] = [
        *snapshot.of(HTTPRoute),
        *snapshot.of(GRPCRoute),
        *snapshot.of(StreamRoute),
    ]
    for route in routes:
        for number, parent in enumerate(route.spec.parent_refs or ()):
            namespace = parent.namespace or route.metadata.namespace
            key = Key(parent.group, parent.kind, namespace, parent.name)
            if parent.group == GROUP and parent.kind in ("Gateway", "ListenerSet") and key not in parents:
                yield _nobody(route.key, f"spec.parentRefs[{number}]: {key} does not exist")
        if not route.spec.parent_refs:
            yield _nobody(route.key, "spec.parentRefs: there is none")


def _nobody(key: Key, message: str) -> Row:
    return Row(Severity.WARNING, key.kind, key.path, "", "NotServed", message)


def _updates(state: State) -> tuple[StatusUpdate, ...]:
    return derive(
        state.topology,
        snapshot=state.snapshot,
        controller_name=CONTROLLER_NAME,
        programmed=_programmed(state),
        refusals=state.refusals,
        features=FEATURES,
    )


def _programmed(state: State) -> Mapping[Key, Programmed]:
    """What the one data plane says, for each Gateway."""
    if state.serving is None:
        return {}
    said = Programmed(serving=state.serving, message=state.problem, reason="Invalid")
    return {
        gateway.key: programmed_at(gateway, said=said, listening=state.addresses) for gateway in state.topology.gateways
    }
