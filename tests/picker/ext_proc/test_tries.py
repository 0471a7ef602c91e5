"""Endpoints that failed before they answered, as Infergate's own gateway tells of them."""

import json
from collections.abc import Mapping

import pytest

from controller.extproc.messages import HeadersAnswer, Metadata
from controller.plugins.types import AppliedPolicy

from .conftest import CHAT, ONE_AT_A_TIME, Gateway, Served, Talk, request_headers, response_headers

PODS = ("127.1.0.1:8000", "127.1.0.2:8000", "127.1.0.3:8000")
ONE, TWO, THREE = PODS


def _tried(**outcomes: str) -> Metadata:
    """By the pod's name."""
    named = {"one": ONE, "two": TWO, "three": THREE}
    return {"infergate.dev": {"tried": "".join(f"{named[name]}={outcome};" for name, outcome in outcomes.items())}}


def _left(*addresses: str) -> Metadata:
    return {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": list(addresses)}}


async def _ask(gateway: Gateway, metadata: Metadata | None = None, *, headers: Mapping[str, str] | None = None) -> Talk:
    talk = gateway.talk()
    await talk.send(request_headers(CHAT, ends=True, headers=headers), metadata)
    return talk


async def _fail(talk: Talk, metadata: Metadata) -> None:
    """All that it chose failed."""
    await talk.send(response_headers(502, ends=True), metadata)
    answer, _ = await talk.next()
    assert isinstance(answer, HeadersAnswer)
    await talk.close()


async def _failures(picker: Served) -> dict[tuple[str, str], float]:
    name = "infergate_endpoint_failures_total"
    found = {}
    for pod in PODS:
        for failure in ("unreachable", "closed", "unavailable"):
            found[pod, failure] = await picker.metric(name, model_server_endpoint=pod, reason=failure)
    return {key: count for key, count in found.items() if count}


async def test_endpoints_that_failed_are_counted_and_avoided(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk = await _ask(gateway, _left(ONE))
    assert await talk.picked() == ONE
    await _fail(talk, _tried(one="unreachable", two="closed"))
    await picker.at_rest()
    assert await _failures(picker) == {(ONE, "unreachable"): 1, (TWO, "closed"): 1}
    assert {await (await _ask(gateway)).picked() for _ in range(6)} == {THREE}


async def test_endpoint_that_was_tried_is_not_chosen_and_not_counted_twice(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    asked = [await _ask(gateway, _tried(one="closed", two="closed")) for _ in range(6)]
    assert {await talk.picked() for talk in asked} == {THREE}
    asked = [await _ask(gateway, {**_tried(one="closed"), **_left(TWO)}) for _ in range(6)]
    assert {await talk.picked() for talk in asked} == {TWO}
    assert await _failures(picker) == {}


async def test_list_is_no_longer_than_tries_are_left(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(fallbacks=1))
    for tried, count in ((None, 2), (_tried(one="closed"), 2), (_tried(one="closed", two="closed"), 1)):
        _, said = await (await _ask(gateway, tried)).next()
        assert len(said["envoy.lb"]["x-gateway-destination-endpoint"].split(",")) == count


async def test_request_that_was_admitted_once_does_not_wait_again(picker: Served, gateway: Gateway) -> None:
    await picker.serving(ONE, policy=ONE_AT_A_TIME)
    await (await _ask(gateway)).picked()
    refused = await (await _ask(gateway, _tried(one="closed"))).refused()
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (502, "endpoints_failed")


@pytest.mark.parametrize(
    "metadata", [{**_tried(one="closed"), **_left()}, _tried(one="closed", two="closed", three="closed")]
)
async def test_refusal_says_what_was_tried(picker: Served, gateway: Gateway, metadata: Metadata) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(explain=True))
    refused = await (await _ask(gateway, metadata, headers={"x-infergate-explain": "1"})).refused()
    assert refused.status == 502
    (why,) = [one.value for one in refused.changes.set if one.name == "x-infergate-explain"]
    tried = metadata["infergate.dev"]["tried"]
    assert json.loads(why)["outcome"] == "endpoints_failed"
    assert json.loads(why)["tried"] == tried.rstrip(";").split(";")
    await picker.at_rest()


async def test_client_cannot_say_what_was_tried(picker: Served, gateway: Gateway) -> None:
    await picker.serving(ONE)
    talk = await _ask(gateway, headers={"x-infergate-tried": f"{ONE}=closed;"})
    assert await talk.picked() == ONE
