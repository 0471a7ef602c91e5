from collections.abc import Awaitable, Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.simulator.pods import Simulation
from controller.simulator.series import AdapterSets, Histogram, Load

Start = Callable[..., Awaitable[Simulation]]


async def _samples(
    http: httpx.AsyncClient, simulation: Simulation
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = (await http.get(f"http://{simulation.addresses['a']}/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _plain(name: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"vllm:{name}", frozenset({"model_name": "base", "engine": "0"}.items())


async def test_counters_follow_requests(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    for _ in range(2):
        body = {"model": "base", "prompt": "x" * 400, "max_tokens": 5}
        await http.post(f"http://{simulation.addresses['a']}/v1/completions", json=body)
    samples = await _samples(http, simulation)
    expected = {
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": 0,
        "prompt_tokens_total": 200,
        "generation_tokens_total": 10,
        "prefix_cache_queries_total": 200,
        "prefix_cache_hits_total": 96,
        "num_preemptions_total": 0,
        "time_to_first_token_seconds_count": 2,
        "e2e_request_latency_seconds_count": 2,
        "inter_token_latency_seconds_count": 8,
        "request_queue_time_seconds_count": 2,
        "request_prompt_tokens_sum": 200,
        "request_generation_tokens_sum": 10,
        "request_time_per_output_token_seconds_count": 2,
    }
    assert {name: samples[_plain(name)] for name in expected} == expected


async def test_times_of_requests_are_told_by_their_parts(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start(noise=0)
    body = {"model": "base", "prompt": "x" * 400, "max_tokens": 5}
    await http.post(f"http://{simulation.addresses['a']}/v1/completions", json=body)
    samples = await _samples(http, simulation)
    prefill, decode, inference, per_token = (
        samples[_plain(f"request_{part}_seconds_sum")]
        for part in ("prefill_time", "decode_time", "inference_time", "time_per_output_token")
    )
    assert prefill == pytest.approx((0.012 + 100 * 0.00025) / 50, rel=0.01)
    assert decode == pytest.approx(4 * 0.0124 / 50, rel=0.01)
    assert inference == pytest.approx(prefill + decode)
    assert per_token == pytest.approx(decode / 4)


async def test_gauges_follow_the_load(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start(speed=0.01, max_sequences=1)
    pod = simulation.pod("a")
    for _ in range(3):
        pod.submit(pod.generation(b"x" * 6400, model="base", tokens=1))
    samples = await _samples(http, simulation)
    assert samples[_plain("num_requests_running")] == 1
    assert samples[_plain("num_requests_waiting")] == 2
    assert samples[_plain("kv_cache_usage_perc")] == pytest.approx(100 / 3000)


async def test_the_cache_is_described_by_labels(start: Start, http: httpx.AsyncClient) -> None:
    samples = await _samples(http, await start(blocks=500, block_size=32, max_context=100))
    (labels,) = (dict(labels) for name, labels in samples if name == "vllm:cache_config_info")
    assert (labels["block_size"], labels["num_gpu_blocks"], labels["engine"]) == ("32", "500", "0")


async def test_adapters_are_listed_only_where_there_are_any(start: Start, http: httpx.AsyncClient) -> None:
    name = "vllm:lora_requests_info"
    assert name not in {name for name, _ in await _samples(http, await start())}
    simulation = await start(adapters=["one", "two"], max_adapters=1, speed=0.01)
    pod = simulation.pod("a")
    for adapter in ("one", "two"):
        pod.submit(pod.generation(b"x", model=adapter, tokens=1))
    labels = [dict(labels) for sample, labels in await _samples(http, simulation) if sample == name]
    assert labels == [{"max_lora": "1", "running_lora_adapters": "one", "waiting_lora_adapters": "two"}]


def test_sets_of_adapters_keep_the_time_they_were_last_seen() -> None:
    sets = AdapterSets()
    for now, adapters in ((1.0, ("one",)), (2.0, ("one", "two")), (3.0, ("one",))):
        load = Load(running=1, waiting=0, kv_usage=0, running_adapters=adapters, waiting_adapters=())
        sets.see(load, now=now)
    assert [line.rsplit(" ", 1)[1] for line in sets.lines(slots=2)] == ["2.0", "3.0"]


def test_buckets_are_cumulative_and_hold_their_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(seconds)
    assert [line.split()[-1] for line in histogram.lines("x", "")] == ["2", "3", "4", "4", "12.0"]
