"""The addresses of Gateways that share one nginx: those that it listens on, of which a Gateway may want some."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.status.types import Address, AddressType, Programmed
from controller.topology.types import GatewayState

_ANY: Final = ("0.0.0.0", "::")
"""Listening here is listening on every address of the machine, and nobody knows which those are."""


def programmed_at(gateway: GatewayState, *, said: Programmed, listening: Sequence[str]) -> Programmed:
    """What nginx says, as it holds for one Gateway. `listening` are IP addresses, without brackets.

    Reason: AddressNotUsable. Source: Gateway API, GatewaySpec.addresses.
    """
    wanted = gateway.addresses or tuple(listening)
    missing = [] if set(_ANY) & set(listening) else [value for value in wanted if value not in listening]
    found = replace(said, addresses=tuple(Address(AddressType.IP, value) for value in wanted if value not in missing))
    if not missing or not said.serving:
        return found
    message = f"spec.addresses: {', '.join(missing)} not usable, the gateway listens on {', '.join(listening)}"
    return replace(found, serving=False, reason="AddressNotUsable", message=message)
