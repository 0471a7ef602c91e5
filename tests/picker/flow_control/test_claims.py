"""Priority, tenant and deadline of a request, from its headers and the pool's policy."""

import pytest

from controller.picker.flow_control.claims import Tenants, claimant_of, priority_of, ticket_of
from controller.picker.flow_control.settings import PoolPolicy, TenantBy

OBJECTIVES = {"chat": 10, "batch": -5}
POLICY = PoolPolicy(objectives=OBJECTIVES, default_priority=2)
TRUSTING = PoolPolicy(trust_fairness_id=True, trust_deadline=True)


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ({}, 2),
        ({"x-llm-d-inference-objective": "chat"}, 10),
        ({"x-gateway-inference-objective": "batch"}, -5),
        ({"x-llm-d-inference-objective": "chat", "x-gateway-inference-objective": "batch"}, 10),
        ({"x-llm-d-inference-objective": "of-another-pool"}, 2),
        ({"x-llm-d-inference-objective": ""}, 2),
        ({"x-llm-d-inference-objective": "\xff"}, 2),
        ({"x-infergate-priority": "4"}, 4),
        ({"x-infergate-priority": "-4", "x-llm-d-inference-objective": "chat"}, -4),
        ({"x-infergate-priority": "", "x-llm-d-inference-objective": "chat"}, 10),
        ({"x-infergate-priority-cap": "3", "x-llm-d-inference-objective": "chat"}, 3),
        ({"x-infergate-priority-cap": "30", "x-llm-d-inference-objective": "chat"}, 10),
        ({"x-infergate-priority-cap": "0", "x-llm-d-inference-objective": "batch"}, -5),
        ({"x-infergate-priority-cap": "0"}, 2),
        ({"x-infergate-priority-default": "7"}, 7),
        ({"x-infergate-priority-default": "7", "x-llm-d-inference-objective": "chat"}, 10),
        ({"x-infergate-priority-default": "no number"}, 2),
        ({"x-infergate-priority": "99999999999"}, 2),
    ],
)
def test_priority(headers: dict[str, str], priority: int) -> None:
    assert priority_of(_encoded(headers), POLICY) == priority


@pytest.mark.parametrize(
    ("headers", "model", "priority"),
    [
        ({}, "chat", 10),
        ({}, "Chat", 2),
        ({}, "", 2),
        ({"x-infergate-priority": "4"}, "chat", 4),
        ({"x-infergate-priority-cap": "3"}, "chat", 10),
        ({"x-infergate-priority-default": "7"}, "chat", 10),
        ({"x-infergate-priority-default": "7"}, "other", 7),
        ({"x-llm-d-inference-objective": "batch"}, "chat", -5),
        ({"x-llm-d-inference-objective": "of-another-pool"}, "chat", 10),
    ],
)
def test_model_has_a_priority_where_no_objective_is_named(headers: dict[str, str], model: str, priority: int) -> None:
    policy = PoolPolicy(objectives=OBJECTIVES, default_priority=2, models={"chat": 10})
    assert priority_of(_encoded(headers), policy, model=model) == priority


def test_priority_is_0_where_nothing_says_otherwise() -> None:
    assert priority_of({}, PoolPolicy()) == 0


@pytest.mark.parametrize(
    ("headers", "claimant"),
    [
        ({"x-forwarded-for": "9.9.9.9, 10.0.0.1"}, b"a10.0.0.1"),
        ({"x-forwarded-for": "10.0.0.1"}, b"a10.0.0.1"),
        ({"x-real-ip": "10.0.0.2"}, b"a10.0.0.2"),
        ({"x-real-ip": "9.9.9.9", "x-forwarded-for": "10.0.0.1"}, b"a10.0.0.1"),
        ({}, b"a"),
        ({"authorization": "Bearer x", "x-forwarded-for": "10.0.0.1"}, b"cBearer x"),
        ({"x-api-key": "y", "x-forwarded-for": "10.0.0.1"}, b"cy"),
        ({"x-llm-d-inference-fairness-id": "team", "x-api-key": "y"}, b"cy"),
    ],
)
def test_tenant_of_a_client_that_is_not_trusted(headers: dict[str, str], claimant: bytes) -> None:
    assert claimant_of(_encoded(headers), PoolPolicy()) == claimant


@pytest.mark.parametrize("name", ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"])
def test_fairness_id_counts_where_clients_are_trusted(name: str) -> None:
    assert claimant_of(_encoded({name: "team", "x-api-key": "y"}), TRUSTING) == b"iteam"


def test_fairness_id_cannot_pass_for_a_credential() -> None:
    credential = claimant_of({b"x-api-key": b"y"}, TRUSTING)
    assert claimant_of({b"x-llm-d-inference-fairness-id": b"y"}, TRUSTING) != credential


def test_invented_credentials_gain_nothing_where_the_address_counts() -> None:
    policy = PoolPolicy(tenant_by=TenantBy.ADDRESS)
    headers = {b"authorization": b"Bearer invented", b"x-forwarded-for": b"10.0.0.1"}
    assert claimant_of(headers, policy) == b"a10.0.0.1"


@pytest.mark.parametrize(
    ("value", "due"),
    [("250", 0.25), ("0", None), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_deadline_counts_where_clients_are_trusted(value: str, due: float | None) -> None:
    headers = _encoded({"x-llm-d-slo-ttft-ms": value})
    assert ticket_of(headers, TRUSTING, request="1", pool="llm/gpu", priority=0, size=0).due == due
    assert ticket_of(headers, PoolPolicy(), request="1", pool="llm/gpu", priority=0, size=0).due is None


def test_credentials_are_neither_kept_nor_shown() -> None:
    headers = {b"authorization": b"Bearer secret"}
    ticket = ticket_of(headers, PoolPolicy(), request="1", pool="llm/gpu", priority=0, size=3)
    name = Tenants(b"key").name(ticket.claimant)
    assert "secret" not in repr(ticket) + name
    assert name == Tenants(b"key").name(ticket.claimant) != Tenants(b"another").name(ticket.claimant)


def _encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode("latin-1") for name, value in headers.items()}
