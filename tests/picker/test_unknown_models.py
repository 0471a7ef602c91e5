"""A model that a pool does not have, where its policy says 404."""

import asyncio

import pytest

from controller.picker.answers import Refusal
from controller.picker.model_lists import DOUBTED_EVERY, ModelLists
from controller.picker.pages import Page
from controller.picker.served import ServedModel
from controller.plugins.types import AppliedPolicy
from controller.pools import ModelRewrite, ModelTarget, Pool, PoolEndpoint, pools_of

from .conftest import Picker, request_of

POOL = "llm/gpu"


def _serve(picker: Picker, *names: str, refuses: bool = True, rewrites: tuple[ModelRewrite, ...] = ()) -> None:
    endpoints = tuple(PoolEndpoint(f"{name}:8000", f"llm/{name}") for name in names)
    policy = AppliedPolicy(refuse_unknown_models=refuses)
    picker.table.apply(pools_of((Pool(POOL, endpoints, policy=policy, rewrites=rewrites),)))
    for name in names:
        picker.endpoint(name).models = (ServedModel("m"), ServedModel(f"of-{name}"))
    picker.table.digest_readings()


def _refused(picker: Picker, model: str, *, tried: str = "") -> Refusal | None:
    return picker.director.unknown(request_of("1", model=model, tried=tried))


def test_unknown_model_is_404_and_the_error_names_the_others(picker: Picker) -> None:
    _serve(picker, "a", "b")
    refusal = _refused(picker, "x")
    assert refusal is not None
    assert (refusal.status, refusal.message) == (404, "the model `x` does not exist, there are m, of-a, of-b")
    assert b'"type":"not_found_error"' in refusal.body("/v1/messages")


@pytest.mark.parametrize("model", ["m", "of-b", ""])
def test_model_of_any_endpoint_goes_its_way(picker: Picker, model: str) -> None:
    _serve(picker, "a", "b")
    assert _refused(picker, model) is None


def test_pool_whose_policy_does_not_say_so_has_any_model(picker: Picker) -> None:
    _serve(picker, "a", refuses=False)
    assert _refused(picker, "x") is None


def test_endpoint_that_lists_nothing_may_have_any_model(picker: Picker) -> None:
    _serve(picker, "a", "b")
    picker.endpoint("b").models = ()
    assert _refused(picker, "x") is None


def test_pool_without_endpoints_is_not_without_models(picker: Picker) -> None:
    _serve(picker)
    assert _refused(picker, "x") is None


def test_retry_is_not_refused(picker: Picker) -> None:
    _serve(picker, "a")
    assert _refused(picker, "x", tried="a:8000=closed;") is None


def test_adapter_in_use_is_there(picker: Picker) -> None:
    _serve(picker, "a")
    picker.read("a", running_adapters=("x",))
    assert _refused(picker, "x") is None


@pytest.mark.parametrize(("models", "is_refused"), [(("x",), False), (("y",), True), ((), False)])
def test_model_that_a_rewrite_names_is_there(picker: Picker, models: tuple[str, ...], is_refused: bool) -> None:
    _serve(picker, "a", rewrites=(ModelRewrite("", (ModelTarget("m", 1),), models),))
    assert (_refused(picker, "x") is not None) is is_refused


async def test_endpoints_are_asked_anew_for_a_model_that_they_do_not_list(picker: Picker) -> None:
    class Pods:
        text = b'{"data":[{"id":"m"}]}'

        async def get(self, address: str) -> Page:
            await asyncio.sleep(0)
            return Page(200, self.text)

        def forget(self, address: str) -> None:
            pass

    _serve(picker, "a")
    pods = Pods()
    lists = ModelLists(table=picker.table, pages=pods, clock=picker.clock)
    await lists.ask()
    pods.text = b'{"data":[{"id":"m"},{"id":"late","parent":"m"}]}'
    assert _refused(picker, "late") is not None
    await lists.ask()
    assert _refused(picker, "late") is not None  # asked no more than once a second
    picker.clock.pass_(DOUBTED_EVERY)
    await lists.ask()
    assert _refused(picker, "late") is None
