"""Where a Gateway is reached, as its Service says.

Source: Gateway API, GatewayStatus.addresses and the reasons AddressNotAssigned and AddressNotUsable of Programmed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from controller.dataplane.manifests import Json


@dataclass(frozen=True)
class Reached:
    """The addresses of a Gateway, and what is wrong with them."""

    addresses: tuple[str, ...] = ()
    """IP addresses and hostnames, in the order of the Service. Those that were wanted, where some were."""
    reason: str = ""
    """Empty when the Gateway is reached as it wants, else AddressNotAssigned or AddressNotUsable."""
    message: str = ""


def reached(service: Json | None, *, wanted: Sequence[str]) -> Reached:
    """Where the Gateway of a Service is reached. wanted: `GatewayState.addresses`."""
    if service is None:
        return Reached((), "AddressNotAssigned", "there is no Service yet")
    found = _addresses(service)
    present, asked = ({_value(address) for address in addresses} for addresses in (found, wanted))
    missing = [address for address in wanted if _value(address) not in present]
    name = f"Service {service['metadata']['namespace']}/{service['metadata']['name']}"
    if missing:
        given = f", which has {', '.join(found)}" if found else ", which has none"
        kept = tuple(address for address in found if _value(address) in asked)
        return Reached(kept, "AddressNotUsable", f"spec.addresses: {', '.join(missing)} not given to {name}{given}")
    if not found:
        return Reached((), "AddressNotAssigned", f"{name} waits for the address of a load balancer")
    return Reached(tuple(address for address in found if _value(address) in asked) if wanted else found)


def _value(address: str) -> object:
    """What two ways to write an address have in common."""
    try:
        return ip_address(address)
    except ValueError:
        return address


def _addresses(service: Json) -> tuple[str, ...]:
    """Those that a load balancer gave; for other types the external addresses, or else those in the cluster."""
    spec = service.get("spec") or {}
    if spec.get("type") == "LoadBalancer":
        balancer = (service.get("status") or {}).get("loadBalancer") or {}
        given = (item.get("ip") or item.get("hostname") for item in balancer.get("ingress") or ())
        return tuple(str(address) for address in given if address)
    return tuple(spec.get("externalIPs") or spec.get("clusterIPs") or ())
