"""Where Gateways that share an nginx are reached."""

from collections.abc import Callable, Sequence

import pytest

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.status.shared_addresses import programmed_at
from controller.status.types import Programmed
from controller.topology.build import build
from controller.topology.types import GatewayState

Read = Callable[..., Snapshot]

FACTS = [
    ((), ("127.0.0.1", "::1"), ["127.0.0.1", "::1"], True),
    (("::1",), ("127.0.0.1", "::1"), ["::1"], True),
    (("10.0.0.9",), ("127.0.0.1",), [], False),
    (("127.0.0.1", "10.0.0.9"), ("127.0.0.1",), ["127.0.0.1"], False),
    (("10.0.0.9",), ("0.0.0.0",), ["10.0.0.9"], True),
]


def _gateway(read: Read, wanted: Sequence[str]) -> GatewayState:
    addresses = ", ".join(f'{{value: "{value}"}}' for value in wanted)
    snapshot = read(
        f"""
        kind: Gateway
        metadata: {{name: edge}}
        spec:
          gatewayClassName: infergate
          addresses: [{addresses}]
          listeners: [{{name: http, port: 80, protocol: HTTP}}]
        """
    )
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    return next(item for item in topology.gateways if item.key.name == "edge")


@pytest.mark.parametrize(("wanted", "listening", "shown", "serving"), FACTS)
def test_gateway_is_reached_where_nginx_listens_as_far_as_it_wants(
    read: Read, wanted: Sequence[str], listening: Sequence[str], shown: list[str], serving: bool
) -> None:
    found = programmed_at(_gateway(read, wanted), said=Programmed(serving=True), listening=listening)

    assert [address.value for address in found.addresses] == shown
    assert found.serving is serving
    assert serving or found.reason == "AddressNotUsable"


def test_what_nginx_refused_comes_before_its_addresses(read: Read) -> None:
    said = Programmed(serving=False, reason="Invalid", message="nginx: no")
    found = programmed_at(_gateway(read, ["10.0.0.9"]), said=said, listening=["127.0.0.1"])

    assert (found.reason, found.message) == ("Invalid", "nginx: no")
