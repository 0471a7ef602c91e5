"""Base models of what pools serve, as NGINX asks for them."""

import json

import pytest

from controller.picker.base_models import BaseModels, base_models
from controller.picker.health import Failure
from controller.picker.model_names import encoded, models_of
from controller.picker.served import ServedModel
from controller.pools import ModelRewrite, ModelTarget, Pool, PoolEndpoint, pools_of

from .conftest import Picker

BASE, TUNED = ServedModel("base"), ServedModel("tuned", parent="base", owned_by="us")


def _rewrite(name: str, *targets: str, weight: int = 1) -> ModelRewrite:
    return ModelRewrite("", tuple(ModelTarget(target, weight) for target in targets), (name,))


def _serve(picker: Picker, *rewrites: ModelRewrite, **pools: tuple[ServedModel, ...]) -> None:
    """Pools by name, each with one endpoint of that name and what it lists; the rewrites are those of all."""
    made = [
        Pool(name=f"llm/{name}", endpoints=(PoolEndpoint(f"{name}:8000", f"llm/{name}"),), rewrites=rewrites)
        for name in pools
    ]
    picker.table.apply(pools_of(tuple(made)))
    for name, models in pools.items():
        picker.endpoint(name).models = models


def _bases(picker: Picker) -> dict[str, str]:
    return base_models(picker.table.pools.values(), now=picker.clock())


def test_base_model_is_its_own_and_its_adapters(picker: Picker) -> None:
    _serve(picker, a=(BASE, TUNED))
    assert _bases(picker) == {"base": "base", "tuned": "base"}


def test_first_pool_by_name_has_an_adapter_of_two(picker: Picker) -> None:
    _serve(picker, b=(ServedModel("tuned", parent="other"),), a=(TUNED,))
    assert _bases(picker) == {"tuned": "base"}


@pytest.mark.parametrize(
    ("targets", "base"),
    [(("tuned", "base"), "base"), (("tuned", "gone"), "base"), (("tuned", "other"), None), (("gone",), None)],
)
def test_alias_has_the_base_that_its_models_share(picker: Picker, targets: tuple[str, ...], base: str | None) -> None:
    _serve(picker, _rewrite("alias", *targets), a=(BASE, TUNED, ServedModel("other")))
    assert _bases(picker).get("alias") == base


def test_adapter_in_use_that_is_listed_nowhere_belongs_to_the_only_base(picker: Picker) -> None:
    _serve(picker, a=(BASE,), b=(ServedModel("x"), ServedModel("y")))
    picker.read("a", running_adapters=("hot",))
    picker.read("b", waiting_adapters=("unclear",))
    assert _bases(picker) == {"base": "base", "hot": "base", "x": "x", "y": "y"}


@pytest.mark.parametrize("base", ["a\nb", "x" * 257])
def test_name_that_no_header_should_hold_is_left_out(picker: Picker, base: str) -> None:
    _serve(picker, a=(ServedModel("tuned", parent=base),))
    assert _bases(picker) == {}


def test_endpoint_that_fails_lists_nothing_while_another_does_not(picker: Picker) -> None:
    _serve(picker, a=(BASE, TUNED))
    picker.endpoint("a").health.failed(Failure.UNREACHABLE, request="1", now=picker.clock())
    assert _bases(picker) == {"base": "base", "tuned": "base"}


def test_aliases_are_listed_with_the_models_that_they_stand_for(picker: Picker) -> None:
    rewrites = (_rewrite("alias", "tuned"), _rewrite("none", "tuned", weight=0), _rewrite("tuned", "base"))
    _serve(picker, *rewrites, a=(BASE, TUNED))
    listed = json.loads(encoded(models_of(picker.table.pools["llm/a"], now=picker.clock())))["data"]
    assert [(model["id"], model["parent"], model["owned_by"]) for model in listed] == [
        ("alias", "base", "us"),
        ("base", None, None),
        ("tuned", "base", "us"),
    ]


def test_answer_is_empty_without_news(picker: Picker) -> None:
    answers = BaseModels()
    assert answers.answer(b"").startswith(b"HTTP/1.1 304 ")
    _serve(picker, a=(BASE,))
    answers.digest(picker.table.pools.values(), now=picker.clock())
    head, _, body = answers.answer(b"").partition(b"\r\n\r\n")
    assert json.loads(body) == {"base": "base"}
    (etag,) = (line.removeprefix(b"etag: ") for line in head.split(b"\r\n") if line.startswith(b"etag: "))
    assert answers.answer(etag).startswith(b"HTTP/1.1 304 ")
    _serve(picker, a=(BASE, TUNED))
    answers.digest(picker.table.pools.values(), now=picker.clock())
    assert answers.answer(etag).startswith(b"HTTP/1.1 200 ")
