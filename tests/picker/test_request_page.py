"""Metrics of requests under the names of the field: what is counted of a request, and how it is told."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from controller.picker.answers import Outcome, Refusal
from controller.picker.request_counts import MOST_SETS
from controller.picker.request_page import request_page
from controller.picker.served import ServedModel
from controller.pools import ModelRewrite, ModelTarget, Pool, PoolEndpoint, pools_of

from .conftest import Picker, request_of

Asked = Mapping[str, Any]  # Any: fields of a request, or of a completion
NOTHING: Asked = MappingProxyType({})
PLAIN: Mapping[str, str] = MappingProxyType(
    {"name": "gpu", "namespace": "llm", "model_name": "m", "target_model_name": "m", "priority": "0"}
)
TOLD: Asked = {"prompt_tokens": 100, "cached_tokens": 40, "completion_tokens": 11}
"""What an answer tells of its tokens."""
BOUNDS = {
    "request_duration_seconds": (
        ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120 180 240 300 360 480 600 900 1200 "
        "1800 2700 3600"
    ),
    "request_size_bytes": " ".join(str(2**power) for power in range(6, 31)),
    "response_size_bytes": "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536",
    "request_input_tokens": (
        "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536 131072 262144 524288 1048576"
    ),
    "request_cached_tokens": (
        "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536 131072 262144 524288 1048576"
    ),
    "request_output_tokens": "1 8 16 32 64 128 256 512 1024 2048 4096 8192",
    "request_ntpot_seconds": ".001 .002 .005 .01 .02 .05 .1 .2 .5 1 2 5 10",
    "request_ttft_seconds": ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120",
    "request_streaming_tpot_seconds": (
        ".0005 .00205 .005 .01 .02 .04 .06 .08 .1 .125 .15 .2 .3 .4 .5 .6 .8 1 2"
    ),
}  # fmt: skip
"""As the field has them."""


@pytest.fixture
def picker() -> Picker:
    picker = Picker()
    picker.serve("a", "b")
    picker.table.pools["llm/gpu"].memory.models.add("m")
    return picker


def families(picker: Picker) -> dict[str, Metric]:
    """The page as Prometheus reads it, by name without the prefix."""
    page = b"".join(request_page(picker.table, picker.in_flight)).decode()
    return {family.name.removeprefix("llm_d_epp_"): family for family in text_string_to_metric_families(page)}


def told(picker: Picker, name: str, /, **labels: str) -> float:
    """The sum of the samples of that name that have these labels."""
    return sum(
        sample.value
        for family in families(picker).values()
        for sample in family.samples
        if sample.name == f"llm_d_epp_{name}" and labels.items() <= sample.labels.items()
    )


def served(picker: Picker, request: str = "1", *, model: str = "m", asked: Asked = NOTHING, **end: Any) -> None:
    """A request from its pick to its end. Any: fields of a completion."""
    endpoint = picker.pick(request, model=model, **asked)
    picker.complete(request, endpoint=endpoint, **end)


def test_request_has_the_labels_of_the_field(picker: Picker) -> None:
    served(picker)
    (sample,) = families(picker)["request"].samples
    assert (sample.labels, sample.value) == (PLAIN, 1)


def test_request_runs_from_its_pick_to_its_end(picker: Picker) -> None:
    endpoint = picker.pick("1", model="m")
    picker.pick("2", model="m")
    assert told(picker, "request_running", **PLAIN) == 2
    picker.complete("1", endpoint=endpoint)
    assert told(picker, "request_running", **PLAIN) == 1


def test_histograms_have_the_bounds_of_the_field(picker: Picker) -> None:
    served(picker, asked={"size": 1000, "is_streamed": True}, duration=2.0, waited=0.5, **TOLD)
    found = families(picker)
    assert found.keys() == BOUNDS.keys() | {"request", "request_error", "request_running"}
    for name, bounds in BOUNDS.items():
        told = [sample.labels["le"] for sample in found[name].samples if sample.name.endswith("_bucket")]
        assert [float(bound) for bound in told] == [*map(float, bounds.split()), float("inf")]


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("request_size_bytes", 1000),
        ("response_size_bytes", 100),
        ("request_duration_seconds", 2.0),
        ("request_ttft_seconds", 0.5),
        ("request_input_tokens", 100),
        ("request_cached_tokens", 40),
        ("request_output_tokens", 11),
        ("request_ntpot_seconds", 2.0 / 11),
        ("request_streaming_tpot_seconds", 0.15),
    ],
)
def test_answer_is_counted_in_each_histogram(picker: Picker, name: str, total: float) -> None:
    served(picker, asked={"size": 1000, "is_streamed": True}, duration=2.0, waited=0.5, **TOLD)
    assert told(picker, f"{name}_count", **PLAIN) == 1
    assert told(picker, f"{name}_sum", **PLAIN) == pytest.approx(total)


def test_bound_belongs_to_its_bucket(picker: Picker) -> None:
    served(picker, duration=0.1)
    assert told(picker, "request_duration_seconds_bucket", le="0.05") == 0
    assert told(picker, "request_duration_seconds_bucket", le="0.1") == 1


@pytest.mark.parametrize(
    ("asked", "end", "streaming", "seconds"),
    [
        ({}, {"first_byte": 0.7}, "false", 0.7),
        ({"is_streamed": True}, {"first_byte": 0.1, "waited": 0.5}, "true", 0.5),
        # An upload, or tries that failed, come before the endpoint that answers is asked.
        ({"is_streamed": True}, {"first_byte": 0.9, "waited": 0.5}, "true", 0.9),
    ],
)
def test_first_token_counts_from_the_beginning_of_the_request(
    picker: Picker, asked: Asked, end: Asked, streaming: str, seconds: float
) -> None:
    served(picker, asked=asked, **end)
    assert told(picker, "request_ttft_seconds_count") == 1
    assert told(picker, "request_ttft_seconds_sum", streaming=streaming) == pytest.approx(seconds)


def test_wait_in_the_queue_counts_for_the_first_token(picker: Picker) -> None:
    request = request_of("1", model="m", is_streamed=True)
    (endpoint, *_) = picker.director.pick(request)  # type: ignore[misc]  # no refusal
    picker.director.queued(request, 2.0)
    picker.complete("1", endpoint=endpoint.name.removeprefix("llm/"), first_byte=2.1, waited=0.5)
    assert told(picker, "request_ttft_seconds_sum", streaming="true") == pytest.approx(2.5)


@pytest.mark.parametrize("status", [0, 400, 500, 502, 504])
def test_error_of_a_model_server_has_a_duration_and_no_first_token(picker: Picker, status: int) -> None:
    served(picker, status=status, upstream_status=f"200 : {status}")
    assert told(picker, "request_total") == 1
    assert told(picker, "request_error_total", error_code="ModelServerError", **PLAIN) == 1
    assert told(picker, "request_duration_seconds_count") == 1
    assert told(picker, "request_ttft_seconds_count") == 0


@pytest.mark.parametrize("status", [200, 499])
def test_client_that_hangs_up_is_no_error_and_leaves_no_duration(picker: Picker, status: int) -> None:
    served(picker, status=status, is_whole=False)
    assert told(picker, "request_total") == 1
    assert told(picker, "request_error_total") == 0
    assert told(picker, "request_duration_seconds_count") == 0
    assert told(picker, "response_size_bytes_count") == 0


def test_tokens_of_an_answer_that_was_broken_off_count(picker: Picker) -> None:
    served(picker, is_whole=False, **TOLD)
    assert told(picker, "request_output_tokens_sum") == 11
    assert told(picker, "request_ntpot_seconds_count") == 0


def test_pool_without_endpoints_is_an_error(picker: Picker) -> None:
    picker.serve()
    assert picker.pick("1", model="m") == Outcome.POOL_EMPTY
    assert told(picker, "request_total") == 1
    assert told(picker, "request_error_total", error_code="ServiceUnavailable", name="gpu") == 1


def test_request_counts_once_however_often_it_is_tried(picker: Picker) -> None:
    first = picker.pick("1", model="m", size=10)
    second = picker.pick("1", model="m", size=10, tried=f"{first}:8000=closed;")
    picker.complete("1", endpoint=second, duration=3.0, upstream_status="200 : 502 : 200 : 200")
    assert told(picker, "request_total") == 1
    assert told(picker, "request_size_bytes_count") == 1
    assert told(picker, "request_duration_seconds_count") == 1
    assert told(picker, "request_running") == 0
    assert told(picker, "request_error_total") == 0


def test_request_that_every_endpoint_fails_is_one_error(picker: Picker) -> None:
    first = picker.pick("1", model="m")
    second = picker.pick("1", model="m", tried=f"{first}:8000=closed;")
    tried = f"{first}:8000=closed;{second}:8000=closed;"
    assert picker.pick("1", model="m", tried=tried) == Outcome.EXHAUSTED
    picker.complete("1", endpoint=second, status=502, upstream_status="200 : 502 : 200 : 502 : 502")
    assert told(picker, "request_total") == 1
    assert told(picker, "request_error_total") == 1
    assert told(picker, "request_error_total", error_code="ModelServerError") == 1


def test_request_that_is_refused_unread_has_no_model(picker: Picker) -> None:
    picker.director.refused_unread("llm/gpu", Refusal(Outcome.NO_ROOM, 429, "no memory"), size=7)
    assert told(picker, "request_total", model_name="", name="gpu") == 1
    assert told(picker, "request_error_total", error_code="ResourceExhausted") == 1


def test_models_that_clients_make_up_are_one(picker: Picker) -> None:
    for number in range(20):
        served(picker, str(number), model=f"made up {number}")
    served(picker, "nameless", model="")
    assert {sample.labels["model_name"]: sample.value for sample in families(picker)["request"].samples} == {
        "other": 20,
        "": 1,
    }


def test_model_counts_by_name_once_an_endpoint_lists_it(picker: Picker) -> None:
    served(picker, "1", model="late")
    picker.endpoint("a").models = (ServedModel("late"),)
    picker.table.digest_readings()
    served(picker, "2", model="late")
    assert told(picker, "request_total", model_name="late") == 1


def test_names_that_clients_make_up_take_no_more_memory_than_there_is_for_them(picker: Picker) -> None:
    memory = picker.table.pools["llm/gpu"].memory
    for number in range(2 * MOST_SETS):
        picker.director.pick(request_of(f"r{number}", model=f"made up {number}"))
    picker.director.pick(request_of("long", model="m" * 10_000))
    assert len(memory.found_counts) <= MOST_SETS
    assert all(len(model) < 100 for model, _, _ in memory.found_counts)


def test_models_of_a_rewrite_are_known(picker: Picker) -> None:
    rewrite = ModelRewrite("InferenceModelRewrite llm/r, rule 0", (ModelTarget("real", 1),), ("alias",))
    endpoints = (PoolEndpoint(address="a:8000", name="llm/a"),)
    picker.table.apply(pools_of((Pool(name="llm/gpu", endpoints=endpoints, rewrites=(rewrite,)),)))
    served(picker, model="alias", asked={"target": "real"})
    assert told(picker, "request_total", model_name="alias", target_model_name="real") == 1


def test_priority_is_a_label(picker: Picker) -> None:
    served(picker, asked={"priority": -5})
    assert told(picker, "request_total", priority="-5") == 1


def test_sets_of_labels_are_bounded(picker: Picker) -> None:
    memory = picker.table.pools["llm/gpu"].memory
    memory.models |= {f"m{number}" for number in range(MOST_SETS + 10)}
    for number in range(MOST_SETS + 10):
        picker.director.pick(request_of(f"r{number}", model=f"m{number}"))
    samples = families(picker)["request"].samples
    assert len(samples) == MOST_SETS
    assert sum(sample.value for sample in samples) == MOST_SETS + 10
    assert told(picker, "request_total", model_name="other", target_model_name="other", priority="other") == 11


def test_names_of_models_are_escaped(picker: Picker) -> None:
    name = 'a"b\\c\nd'
    picker.table.pools["llm/gpu"].memory.models.add(name)
    served(picker, model=name)
    assert told(picker, "request_total", model_name=name) == 1
