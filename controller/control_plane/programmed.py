"""What the status of a Gateway says of its data plane: how many instances serve it, and where it is reached."""

from collections.abc import Sequence
from ipaddress import ip_address

from controller.dataplane.addresses import Reached
from controller.dataplane.instances import InstanceReport
from controller.status.types import Address, AddressType, Programmed


def programmed(
    reports: Sequence[InstanceReport],
    *,
    version: str,
    reached: Reached,
    problems: Sequence[str] = (),
    instances: int = 0,
) -> Programmed:
    """The state of one Gateway's data plane.

    While instances go from one version to the next the Gateway stays programmed. problems: what kept its objects from
    being as they should be. instances: how many there are or should be, as far as is known; those that said something
    are among them.
    """
    addresses = tuple(_address(value) for value in reached.addresses)
    told = _told(reports, version=version, instances=instances)
    if problems:
        return Programmed(False, addresses, "; ".join(problems), "Invalid")
    if reached.reason:
        return Programmed(False, addresses, reached.message, reached.reason)
    asked = [said for said in reports if said.report.version == version]
    refusal = next((said.report.refusal for said in asked if said.report.refusal is not None), None)
    current = [said for said in reports if version and said.live == version]
    if refusal is not None and not current:
        return Programmed(False, addresses, f"{told}: {refusal}", "Invalid")
    failing = next((f"instance {said.pod}: {said.problem}" for said in asked if said.problem), "")
    message = "; ".join(part for part in (told, str(refusal or ""), failing) if part)
    return Programmed(any(said.live for said in reports), addresses, message)


def _told(reports: Sequence[InstanceReport], *, version: str, instances: int) -> str:
    if not reports:
        return "no instance has said anything yet"
    serving = sum(1 for said in reports if said.live == version)
    return f"{serving} of {max(instances, len(reports))} instances serve version {version}"


def _address(value: str) -> Address:
    try:
        return Address(AddressType.IP, str(ip_address(value)))
    except ValueError:
        return Address(AddressType.HOSTNAME, value)
