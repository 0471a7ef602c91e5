"""Metrics of picks under the names of the field."""

import pytest

from controller.picker.pick_metrics import pick_metrics
from controller.picker.targets import ModelTargets
from controller.pools import ModelRewrite, ModelTarget, Pool, PoolEndpoint, pools_of

from .conftest import Picker


def told(picker: Picker, name: str) -> dict[tuple[str, ...], float]:
    """The samples of that name by the values of their labels, sorted by label."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in pick_metrics(picker.table, picker.director.picks)
        for sample in family.samples
        if sample.name == f"llm_d_epp_{name}"
    }


def test_attempts_are_counted_by_endpoint(picker: Picker) -> None:
    picker.serve("a")
    for request in "123":
        picker.pick(request)
    picker.serve()
    picker.pick("4")
    assert told(picker, "scheduler_attempts_total") == {
        # endpoint_name, namespace, port, status
        ("a", "llm", "8000", "success"): 3,
        ("", "", "", "failure"): 1,
    }


def test_requests_of_which_no_endpoint_was_looked_for_are_no_attempts(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", pool="llm/none")
    assert told(picker, "scheduler_attempts_total")["", "", "", "failure"] == 0


@pytest.mark.parametrize(("again", "ratio"), [(b"p" * 1000, 1.0), (b"q" * 1000, 0.0)])
def test_hit_ratio_is_that_of_the_picked_endpoint(picker: Picker, again: bytes, ratio: float) -> None:
    picker.serve("a")
    picker.pick("1", prompt=b"p" * 1000)
    picker.pick("2", prompt=again)
    picker.pick("3")
    assert told(picker, "prefix_indexer_hit_ratio_count") == {("gpu", "llm"): 2}
    assert told(picker, "prefix_indexer_hit_ratio_sum") == {("gpu", "llm"): ratio}
    buckets = told(picker, "prefix_indexer_hit_ratio_bucket")
    assert buckets["0.0", "gpu", "llm"] == 2 - ratio
    assert buckets["0.9", "gpu", "llm"] == 2 - ratio
    assert buckets["1.0", "gpu", "llm"] == 2


def test_half_a_hit_is_in_the_bucket_of_a_half(picker: Picker) -> None:
    picker.serve("a")
    prompt = bytes(number % 251 for number in range(20_000))
    picker.pick("1", prompt=prompt[:10_000])
    picker.pick("2", prompt=prompt)
    (ratio,) = told(picker, "prefix_indexer_hit_ratio_sum").values()
    buckets = [(float(le), count) for (le, *_), count in told(picker, "prefix_indexer_hit_ratio_bucket").items()]
    assert 0 < ratio < 1
    assert min(le for le, count in buckets if count == 2) == min(le for le, _ in buckets if le >= ratio)


def test_decisions_name_their_rewrite(picker: Picker) -> None:
    rules = [
        ModelRewrite(f"InferenceModelRewrite llm/food, rule {number}", (ModelTarget("real", 1),), (alias,))
        for number, alias in enumerate(("a", "b"))
    ]
    endpoints = (PoolEndpoint(address="a:8000", name="llm/a"),)
    picker.table.apply(pools_of((Pool(name="llm/gpu", endpoints=endpoints, rewrites=tuple(rules)),)))
    targets = picker.table.pools["llm/gpu"].targets
    assert isinstance(targets, ModelTargets)
    for model in "aab":
        targets.draw(model, {})
    assert told(picker, "model_rewrite_decisions_total") == {
        # model_name, model_rewrite_name, name, namespace, target_model
        ("a", "food", "gpu", "llm", "real"): 2,
        ("b", "food", "gpu", "llm", "real"): 1,
    }


def test_version_is_told(picker: Picker) -> None:
    ((labels, value),) = told(picker, "info").items()
    assert value == 1
    assert len(labels) == 2
