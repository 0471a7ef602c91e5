"""What a Gateway says of its instances."""

import pytest

from controller.control_plane.programmed import programmed
from controller.dataplane.addresses import Reached
from controller.errors import NginxRefused

from .conftest import said

HERE = Reached(("10.0.0.1",))


def test_instances_are_counted() -> None:
    reports = [said("2", live="2"), said("2", live="2", pod="b"), said("1", live="1", pod="c")]
    found = programmed(reports, version="2", reached=HERE)
    assert (found.serving, found.message) == (True, "2 of 3 instances serve version 2")
    assert [address.value for address in found.addresses] == ["10.0.0.1"]


def test_instance_that_said_nothing_counts() -> None:
    reports = [said("2", live="2"), said("2", live="2", pod="b")]
    assert programmed(reports, version="2", reached=HERE, instances=3).message == "2 of 3 instances serve version 2"


def test_gateway_stays_programmed_while_instances_change_to_a_version() -> None:
    assert programmed([said("1", live="1")], version="2", reached=HERE).serving


@pytest.mark.parametrize("reports", [[], [said("")], [said("2")]])
def test_gateway_without_an_instance_that_serves_is_not_programmed(reports: list[object]) -> None:
    found = programmed(reports, version="2", reached=HERE)  # type: ignore[arg-type]  # reports
    assert (found.serving, found.reason) == (False, "Pending")


def test_version_that_nginx_refuses_is_not_programmed_and_says_why() -> None:
    reports = [said("2", live="1", refusal=NginxRefused("rules.conf", 3, "unknown directive"))]
    found = programmed(reports, version="2", reached=HERE)
    assert (found.serving, found.reason) == (False, "Invalid")
    assert "unknown directive" in found.message


def test_refusal_of_one_instance_is_told_while_others_serve() -> None:
    reports = [said("2", live="2"), said("2", live="1", pod="b", refusal=NginxRefused(None, None, "out of memory"))]
    found = programmed(reports, version="2", reached=HERE)
    assert found.serving
    assert "out of memory" in found.message


def test_instance_in_trouble_is_named() -> None:
    reports = [said("2", live="2"), said("2", pod="b", problem="the picker did not become ready")]
    message = programmed(reports, version="2", reached=HERE).message
    assert message == "1 of 2 instances serve version 2; instance b: the picker did not become ready"


def test_gateway_without_an_address_says_so() -> None:
    reached = Reached((), "AddressNotAssigned", "waits for a load balancer")
    found = programmed([said("2", live="2")], version="2", reached=reached)
    assert (found.serving, found.reason, found.message) == (False, "AddressNotAssigned", "waits for a load balancer")


def test_objects_that_cannot_be_made_are_told() -> None:
    found = programmed([said("2", live="2")], version="2", reached=HERE, problems=("Service a/b: spec.x: immutable",))
    assert (found.serving, found.reason) == (False, "Invalid")
    assert "spec.x" in found.message


def test_hostname_of_a_load_balancer_is_one() -> None:
    found = programmed([], version="2", reached=Reached(("lb.example.com", "::1")))
    assert [(address.type.value, address.value) for address in found.addresses] == [
        ("Hostname", "lb.example.com"),
        ("IPAddress", "::1"),
    ]
