"""Questions of clients for models."""

import json
from collections.abc import Iterable

import pytest

from controller.picker.listing import answer_elsewhere, asked_model, list_of_rule
from controller.picker.model_names import MOST_NAMES, Models, unknown_model
from controller.picker.served import ServedModel

SERVED = {"llm/a": ("m", "org/tuned"), "llm/b": ("b", "m")}


def models_of(pools: Iterable[str]) -> Models:
    return {name: ServedModel(name) for pool in pools for name in SERVED.get(pool, ())}


def told(answer: bytes | None) -> tuple[int, object]:
    """Status, and the ids of a list or the model."""
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), named(body)


def named(body: bytes | None) -> object:
    """The ids of a list, or the model."""
    assert body is not None
    found = json.loads(body)
    return [model["id"] for model in found["data"]] if "data" in found else found.get("id", found.get("error"))


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/v1/models", ""),
        ("GET", "/gpu/v1/models", ""),
        ("GET", "/v1/models/m", "m"),
        ("GET", "/v1/models/org%2Ftuned", "org/tuned"),
        ("GET", "/v1/models/org/tuned", "org/tuned"),
        ("GET", "/v1/models/", None),
        ("GET", "/v1/modelsx", None),
        ("GET", "/v1/chat/completions", None),
        ("POST", "/v1/models", None),
        ("DELETE", "/v1/models/m", None),
    ],
)
def test_question_is_known_by_its_path(method: str, path: str, asked: str | None) -> None:
    assert asked_model(method, path) == asked


def test_rule_lists_its_pool() -> None:
    answer = list_of_rule("GET", "/v1/models", {}, pool="llm/b", models_of=models_of)
    assert named(answer) == ["b", "m"]


def test_rule_with_several_pools_lists_them_all() -> None:
    headers = {b"x-infergate-pools": b"llm/a,llm/b,llm/gone"}
    answer = list_of_rule("GET", "/v1/models", headers, pool="llm/b", models_of=models_of)
    assert named(answer) == ["b", "m", "org/tuned"]


def test_rule_tells_of_one_model() -> None:
    answer = list_of_rule("GET", "/v1/models/org%2Ftuned", {}, pool="llm/a", models_of=models_of)
    assert named(answer) == "org/tuned"


@pytest.mark.parametrize(("path", "pool"), [("/v1/models", "llm/silent"), ("/v1/models/x", "llm/a"), ("/x", "llm/a")])
def test_what_is_not_known_is_left_to_an_endpoint(path: str, pool: str) -> None:
    assert list_of_rule("GET", path, {}, pool=pool, models_of=models_of) is None


@pytest.mark.parametrize(("path", "found"), [("/v1/models", (200, ["m", "org/tuned"])), ("/v1/models/m", (200, "m"))])
def test_place_without_a_rule_lists_its_pools(path: str, found: tuple[int, object]) -> None:
    doubted: list[str] = []
    headers = {b"x-infergate-pools": b"llm/a"}
    answer = answer_elsewhere("GET", path, headers, models_of=models_of, doubt=doubted.extend)
    assert (told(answer), doubted) == (found, [])


def test_model_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    doubted: list[str] = []
    headers = {b"x-infergate-pools": b"llm/a"}
    answer = answer_elsewhere("GET", "/v1/models/x", headers, models_of=models_of, doubt=doubted.extend)
    status, error = told(answer)
    assert (status, doubted) == (404, ["llm/a"])
    assert error == {
        "message": "the model `x` does not exist, there are m, org/tuned",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


def test_error_names_a_few_of_many_models() -> None:
    models = {f"m{number:02}": ServedModel("") for number in range(MOST_NAMES + 5)}
    assert unknown_model("x", models).message.endswith(f", m{MOST_NAMES - 1:02} and 5 more")
