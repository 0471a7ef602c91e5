"""Where a Gateway is reached."""

from typing import Any

import pytest

from controller.dataplane.addresses import Reached, reached

Json = dict[str, Any]  # any: objects in Kubernetes' shape


def _service(kind: str, *, ingress: tuple[Json, ...] = (), **spec: Any) -> Json:  # any: fields of a spec
    metadata = {"namespace": "shop", "name": "infergate-web"}
    found = {"type": kind, "clusterIPs": ["10.0.0.1"], **spec}
    return {"metadata": metadata, "spec": found, "status": {"loadBalancer": {"ingress": list(ingress)}}}


IP, HOST = {"ip": "1.2.3.4"}, {"hostname": "lb.example"}
FOUND: list[tuple[Json, tuple[str, ...], tuple[str, ...]]] = [
    (_service("LoadBalancer", ingress=(IP, HOST)), (), ("1.2.3.4", "lb.example")),
    (_service("LoadBalancer", ingress=(IP, {"ip": "1.2.3.5"})), ("1.2.3.5",), ("1.2.3.5",)),
    (_service("ClusterIP"), (), ("10.0.0.1",)),
    (_service("LoadBalancer", ingress=({"ip": "fd00::1"}, HOST)), ("fd00:0:0::1",), ("fd00::1",)),
    (_service("NodePort", externalIPs=["1.2.3.4", "1.2.3.5"]), ("1.2.3.5", "1.2.3.4"), ("1.2.3.4", "1.2.3.5")),
]


@pytest.mark.parametrize(("service", "wanted", "addresses"), FOUND)
def test_gateway_is_reached_at_what_its_service_has(
    service: Json, wanted: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    assert reached(service, wanted=wanted) == Reached(addresses)


PROBLEMS: list[tuple[Json | None, tuple[str, ...], Reached]] = [
    (None, (), Reached((), "AddressNotAssigned", "there is no Service yet")),
    (
        _service("LoadBalancer"),
        (),
        Reached((), "AddressNotAssigned", "Service shop/infergate-web waits for the address of a load balancer"),
    ),
    (
        _service("LoadBalancer"),
        ("9.9.9.9",),
        Reached(
            (), "AddressNotUsable", "spec.addresses: 9.9.9.9 not given to Service shop/infergate-web, which has none"
        ),
    ),
    (
        _service("LoadBalancer", ingress=(IP,)),
        ("1.2.3.4", "9.9.9.9"),
        Reached(
            ("1.2.3.4",),
            "AddressNotUsable",
            "spec.addresses: 9.9.9.9 not given to Service shop/infergate-web, which has 1.2.3.4",
        ),
    ),
]


@pytest.mark.parametrize(("service", "wanted", "problem"), PROBLEMS)
def test_address_that_is_missing_is_told(service: Json | None, wanted: tuple[str, ...], problem: Reached) -> None:
    assert reached(service, wanted=wanted) == problem
