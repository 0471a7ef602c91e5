"""Statuses of what a directory holds, as commands show them."""

from collections.abc import Mapping
from datetime import UTC, datetime

import yaml

from controller.reconcile import CONTROLLER_NAME, State
from controller.resources.meta import Key
from controller.status.derive import derive
from controller.status.objects import status_list
from controller.status.rows import worst_first
from controller.status.types import Address, AddressType, Json, Programmed, Row, StatusUpdate


def rows(state: State) -> tuple[Row, ...]:
    """Every finding, worst first, and a row for each resource without any."""
    return worst_first(_updates(state), rejections=state.snapshot.rejections)


def documents(state: State) -> Json:
    """The resources of ours with their statuses, as a Kubernetes `List`."""
    return status_list(_updates(state), snapshot=state.snapshot, now=datetime.now(UTC), controller_name=CONTROLLER_NAME)


def as_yaml(state: State) -> str:
    """`documents` as YAML."""
    return yaml.safe_dump(documents(state), sort_keys=False, allow_unicode=True)


def _updates(state: State) -> tuple[StatusUpdate, ...]:
    return derive(
        state.topology,
        snapshot=state.snapshot,
        controller_name=CONTROLLER_NAME,
        programmed=_programmed(state),
        refusals=state.refusals,
    )


def _programmed(state: State) -> Mapping[Key, Programmed]:
    """What the one data plane says, for each Gateway."""
    if state.serving is None:
        return {}
    addresses = tuple(Address(AddressType.IP, address) for address in state.addresses)
    said = Programmed(serving=state.serving, addresses=addresses, message=state.problem, reason="Invalid")
    return {gateway.key: said for gateway in state.topology.gateways}
