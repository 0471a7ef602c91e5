"""Tokens that answers report: who is asked for them, and how they are counted."""

import json

import pytest

from controller.picker.answers import answer_of_pick
from controller.picker.learned_metrics import learned_metrics
from controller.picker.prompt import read_prompt
from controller.picker.usage import MOST_MODELS

from .conftest import Picker, request_of


def counted(picker: Picker) -> dict[tuple[str, str], float]:
    """Metrics of models by name and model."""
    return {
        (sample.name.removeprefix("infergate_model_"), sample.labels["model"]): sample.value
        for family in learned_metrics(picker.table)
        for sample in family.samples
        if "model" in sample.labels
    }


def answer(picker: Picker, request: str, model: str, **told: object) -> None:
    picker.pick(request, model=model, tells_usage=True)
    picker.complete(request, endpoint="a", **told)


@pytest.mark.parametrize(
    ("path", "body", "tells"),
    [
        ("/v1/chat/completions", {}, True),
        ("/v1/chat/completions", {"stream": True}, False),
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}, True),
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": False}}, False),
        ("/v1/chat/completions", {"stream": True, "stream_options": "yes"}, False),
        ("/v1/chat/completions", {"stream": True, "stream_options": None}, False),
        ("/v1/messages", {"stream": True}, True),
        ("/v1/responses", {"stream": True}, True),
        ("/v1/embeddings", {}, True),
        ("/v1/audio/transcriptions", {}, False),
    ],
)
def test_whether_an_answer_tells_its_usage(path: str, body: dict[str, object], tells: bool) -> None:
    assert read_prompt(path, json.dumps(body).encode()).tells_usage is tells


@pytest.mark.parametrize(("policy", "tells", "read"), [(True, True, True), (True, False, False), (False, True, False)])
def test_usage_is_read_where_the_policy_says_so(picker: Picker, policy: bool, tells: bool, read: bool) -> None:
    picker.serve("a", usage=policy)
    request = request_of("1", tells_usage=tells)
    chosen = picker.director.pick(request)
    assert isinstance(chosen, tuple | list)
    assert (b"x-infergate-usage: 1\r\n" in answer_of_pick(request, chosen)) is read


def test_tokens_are_summed_by_model(picker: Picker) -> None:
    picker.serve("a", usage=True)
    picker.table.pools["llm/gpu"].memory.models.add("base")
    answer(picker, "1", "base", prompt_tokens=10, cached_tokens=8, completion_tokens=3)
    answer(picker, "2", "base", prompt_tokens=5, completion_tokens=1)
    assert counted(picker) == {
        ("answers_total", "base"): 2,
        ("prompt_tokens_total", "base"): 15,
        ("cached_tokens_total", "base"): 8,
        ("completion_tokens_total", "base"): 4,
    }


def test_answer_without_usage_counts_nothing(picker: Picker) -> None:
    picker.serve("a", usage=True)
    answer(picker, "1", "base")
    assert counted(picker) == {}


def test_invented_models_share_one_series(picker: Picker) -> None:
    picker.serve("a", usage=True)
    picker.table.pools["llm/gpu"].memory.adapters.add("tuned")
    for number in range(10_000):
        answer(picker, str(number), f"invented-{number}", prompt_tokens=1)
    answer(picker, "known", "tuned", prompt_tokens=1)
    found = counted(picker)
    assert {model for _, model in found} == {"other", "tuned"}
    assert found["prompt_tokens_total", "other"] == 10_000


def test_models_that_come_and_go_are_bounded(picker: Picker) -> None:
    picker.serve("a", usage=True)
    known = picker.table.pools["llm/gpu"].memory.models
    for number in range(MOST_MODELS + 5):
        known.clear()
        known.add(f"m{number}")
        answer(picker, str(number), f"m{number}", prompt_tokens=1)
    found = counted(picker)
    assert len({model for _, model in found}) == MOST_MODELS + 1
    assert found["prompt_tokens_total", "other"] == 5
