"""Requests of gateways count as those of NGINX do, under the names of the field."""

import json
from typing import Any

import pytest

from controller.extproc.messages import BodyPart, Phase
from controller.plugins.types import AppliedPolicy
from controller.pools import ModelRewrite, ModelTarget

from .conftest import ONE_WAITS, Gateway, Served, Talk, eventually, response_headers

PODS = ("127.1.0.1:8000", "127.1.0.2:8000")
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 40}}
REWRITES = (ModelRewrite("InferenceModelRewrite llm/r, rule 0", (ModelTarget("m", 1),), ("m",)),)
"""A model that a rewrite names is known."""
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def picked(gateway: Gateway, **asked: Any) -> tuple[Talk, bytes]:  # Any: fields of the body
    """A stream whose request was picked for, and the body of that."""
    body = json.dumps({"model": "m", "prompt": "x", **asked}).encode()
    talk = gateway.talk()
    await talk.ask("/v1/completions", body=body)
    await talk.picked()
    await talk.body()
    return talk, body


async def counted(picker: Served, name: str, **labels: str) -> float:
    return await picker.metric(f"llm_d_epp_{name}", **labels)


async def test_whole_answer_is_told_with_sizes_and_tokens(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(usage=True), rewrites=REWRITES)
    talk, body = await picked(gateway)
    assert await counted(picker, "request_running", model_name="m", target_model_name="m", namespace="llm") == 1
    answer = json.dumps({"usage": USAGE}).encode()
    await talk.respond(answer)
    assert await counted(picker, "request_total", model_name="m", target_model_name="m", namespace="llm") == 1
    assert await counted(picker, "request_running") == 0
    assert await counted(picker, "request_size_bytes_sum") == len(body)
    assert await counted(picker, "response_size_bytes_sum") == len(answer)
    assert await counted(picker, "request_duration_seconds_count") == 1
    assert await counted(picker, "request_ttft_seconds_count", streaming="false") == 1
    told = [await counted(picker, f"request_{kind}_tokens_sum") for kind in ("input", "cached", "output")]
    assert told == [100, 40, 7]
    assert await counted(picker, "request_error_total") == 0


async def test_stream_has_its_first_token_and_its_pace(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(usage=True))
    talk, _ = await picked(gateway, **STREAM)
    await talk.respond(b'data: {"choices":[]}\n\n', b'data: {"usage":%b}\n\n' % json.dumps(USAGE).encode())
    assert await counted(picker, "request_ttft_seconds_count", streaming="true", model_name="other") == 1
    assert await counted(picker, "request_streaming_tpot_seconds_count") == 1


async def test_error_of_a_model_server_counts(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway)
    await talk.respond(b"broken", status=500)
    assert await counted(picker, "request_error_total", error_code="ModelServerError") == 1
    assert await counted(picker, "request_ttft_seconds_count") == 0


async def test_answer_that_is_cut_leaves_no_duration(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway)
    await talk.send(response_headers())
    await talk.next()
    await talk.close()
    await picker.at_rest()
    assert await counted(picker, "request_total") == 1
    assert await counted(picker, "request_duration_seconds_count") == 0
    assert await counted(picker, "request_error_total") == 0


async def test_request_that_another_endpoint_serves_is_the_same(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    (other,) = {*PODS} - {await talk.picked()}
    await talk.body()
    await talk.send(response_headers(), {"envoy.lb": {"x-gateway-destination-endpoint-served": other}})
    await talk.next()
    assert await counted(picker, "request_running") == 1
    await talk.send(BodyPart(Phase.RESPONSE, b"{}", end_of_stream=True))
    await talk.body(Phase.RESPONSE)
    assert await counted(picker, "request_running") == 0
    assert await counted(picker, "request_total") == 1
    assert await counted(picker, "request_duration_seconds_count") == 1


@pytest.mark.parametrize("how", ["refused", "hung up"])
async def test_request_that_is_not_admitted_is_an_error(picker: Served, gateway: Gateway, how: str) -> None:
    await picker.serving(PODS[0], policy=ONE_WAITS)
    await picked(gateway)
    waiting, refused = gateway.talk(), gateway.talk()
    await waiting.ask(body=b"{}")

    async def waits(count: int) -> bool:
        return await picker.metric("infergate_flow_control_queue_size") == count

    await eventually(lambda: waits(1))
    if how == "refused":
        await refused.ask(body=b"{}", metadata={"infergate.dev": {"x-infergate-priority": "-3"}})
        assert (await refused.refused()).status == 429
        assert await counted(picker, "request_error_total", error_code="ResourceExhausted", priority="-3") == 1
    else:
        await waiting.close()
        await eventually(lambda: waits(0))
        assert await counted(picker, "request_error_total", error_code="ServiceUnavailable", priority="0") == 1
    assert await counted(picker, "request_total") == 2
    assert await counted(picker, "request_running") == 1


async def test_pool_without_endpoints_is_an_error(picker: Served, gateway: Gateway) -> None:
    await picker.serving()
    talk = gateway.talk()
    await talk.ask(body=b"{}")
    await talk.refused()
    assert await counted(picker, "request_error_total", error_code="ServiceUnavailable", model_name="") == 1
    assert await counted(picker, "scheduler_attempts_total", status="failure") == 1
