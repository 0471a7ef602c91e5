"""Which model a request is given, and what the picker makes of it."""

import random
from collections import Counter

import msgspec
import pytest

from controller.picker.answers import Refusal
from controller.picker.requests import BodyPieces, PickRequest, pick_request
from controller.picker.scheduling.profile import PluginSpec
from controller.picker.targets import ModelTargets, Rewritten
from controller.pools import ModelRewrite, ModelTarget, Pool, PoolEndpoint, pools_of
from tests.picker.conftest import Picker

HEADERS = {
    b"x-infergate-pool": b"llm/gpu",
    b"x-infergate-then": b"@serve",
    b"x-infergate-rewrites": b"@rewritten",
    b"x-infergate-request": b"abc",
    b"x-gateway-model-name": b"food-review",
}


def _rewrite(*models: str, **weights: int) -> ModelRewrite:
    targets = tuple(ModelTarget(model, weight) for model, weight in weights.items())
    return ModelRewrite(f"rule for {models}", targets, models)


def _sticky(rewrite: ModelRewrite) -> ModelRewrite:
    return msgspec.structs.replace(rewrite, sticky_header="x-user")


def _targets(*rewrites: ModelRewrite, memory: Rewritten | None = None) -> ModelTargets:
    return ModelTargets(rewrites, memory=memory or Rewritten())


@pytest.mark.parametrize(
    "weights", [{"a": 90, "b": 10}, {"a": 1, "b": 1}, {"a": 7, "b": 2, "c": 1}, {"a": 999, "b": 1}]
)
@pytest.mark.parametrize("count", [100, 10_000])
def test_weights_hold(weights: dict[str, int], count: int) -> None:
    targets = _targets(_rewrite("m", **weights))

    found = Counter(targets.draw("m", {}) for _ in range(count))

    for model, weight in weights.items():
        # Much closer than asked for, which is 1 % of 10,000.
        assert found[model] == pytest.approx(count * weight / sum(weights.values()), abs=4)


def test_every_second_request_has_its_share_too() -> None:
    targets = _targets(_rewrite("m", a=1, b=1))

    drawn = [targets.draw("m", {}) for _ in range(10_000)]

    for step in (2, 3, 5, 10):
        assert Counter(drawn[::step])["a"] == pytest.approx(len(drawn[::step]) / 2, rel=0.02)


def test_target_without_weight_gets_nothing() -> None:
    targets = _targets(_rewrite("m", a=0, b=1, c=0))

    assert {targets.draw("m", {}) for _ in range(100)} == {"b"}


def test_exact_name_comes_before_a_rule_for_all() -> None:
    targets = _targets(_rewrite("m", exact=1), _rewrite(generic=1))

    assert (targets.draw("m", {}), targets.draw("other", {})) == ("exact", "generic")


def test_model_without_a_rule_keeps_its_name() -> None:
    assert _targets(_rewrite("m", a=1)).draw("other", {}) == ""


def test_retry_keeps_the_target_of_the_first_pick_and_counts_once() -> None:
    memory = Rewritten()
    targets = _targets(_rewrite("m", a=1, b=1), memory=memory)
    first = targets.draw("m", {})

    assert {targets.draw("m", {b"x-infergate-target": first.encode()}) for _ in range(10)} == {first}
    assert sum(memory.counts.values()) == 1


def test_user_stays_on_one_side_and_sides_have_their_weight() -> None:
    targets = _targets(_sticky(_rewrite("m", a=90, b=10)))
    users = [{b"x-user": b"user-%d" % number} for number in range(10_000)]

    first = [targets.draw("m", user) for user in users]

    assert [targets.draw("m", user) for user in users] == first
    assert Counter(first)["b"] == pytest.approx(1000, abs=100)


def test_user_of_the_new_model_stays_there_when_its_share_grows() -> None:
    users = [{b"x-user": b"user-%d" % number} for number in range(1000)]

    few, more = (_targets(_sticky(_rewrite("m", a=100 - part, b=part))) for part in (10, 30))

    assert {n for n, user in enumerate(users) if few.draw("m", user) == "b"} < {
        n for n, user in enumerate(users) if more.draw("m", user) == "b"
    }


def test_request_without_the_header_is_drawn() -> None:
    targets = _targets(_sticky(_rewrite("m", a=1, b=1)))

    assert Counter(targets.draw("m", {}) for _ in range(100))["a"] == pytest.approx(50, abs=2)


def test_shares_go_on_when_the_pools_are_read_again() -> None:
    memory = Rewritten()

    drawn = Counter(_targets(_rewrite("m", a=9, b=1), memory=memory).draw("m", {}) for _ in range(1000))

    assert drawn["b"] == pytest.approx(100, abs=4)


def test_name_that_no_header_can_say_is_no_target() -> None:
    assert _targets(ModelRewrite("x", (ModelTarget("a\r\nx-accel-redirect: /", 1),), ("m",))).draw("m", {}) == ""


def _body(text: bytes = b'{"model":"food-review","prompt":"%b"}' % (b"x" * 4000)) -> BodyPieces:
    body = BodyPieces()
    body.add(text)
    return body


def _asked(target: str, **more: bytes) -> PickRequest:
    headers = HEADERS | {name.encode().replace(b"_", b"-"): value for name, value in more.items()}
    return pick_request("POST", "/v1/completions", headers, _body(), target_of=lambda pool, model, headers: target)


def test_target_is_served_where_the_model_can_be_changed() -> None:
    request = _asked("food-review-1")
    assert (request.model, request.target, request.then) == ("food-review", "food-review-1", b"@rewritten")
    same = _asked("food-review")
    assert (same.target, same.then) == ("food-review", b"@serve")


def test_nginx_that_cannot_change_the_model_keeps_it() -> None:
    headers = {name: value for name, value in HEADERS.items() if name != b"x-infergate-rewrites"}
    request = pick_request("POST", "/v1/completions", headers, _body(), target_of=lambda *_: "food-review-1")
    assert (request.target, request.then) == ("", b"@serve")


def test_prefix_is_the_targets() -> None:
    alias, plain = _asked("food-review-1"), pick_request("POST", "/v1/completions", HEADERS, _body())
    direct = _body(b'{"model":"food-review-1","prompt":"%b"}' % (b"x" * 4000))
    assert list(alias.hashes) == list(pick_request("POST", "/v1/completions", HEADERS, direct).hashes)
    assert list(alias.hashes) != list(plain.hashes)


def test_adapter_is_the_targets() -> None:
    picker = Picker(plugins=(PluginSpec("lora-affinity-scorer"),), profile=(("lora-affinity-scorer", 1.0),))
    picker.serve("a", "b", "c")
    picker.read("b", running_adapters=("food-review-2",), max_adapters=2)
    picker.table.pools["llm/gpu"].memory.adapters.add("food-review-2")

    request = _asked("food-review-2")
    chosen = picker.director.pick(request)

    assert request.adapter == "food-review-2"
    assert not isinstance(chosen, Refusal)
    assert chosen[0].name == "llm/b"


def test_director_draws_by_the_pool() -> None:
    picker = Picker()
    endpoints = (PoolEndpoint(address="a:8000", name="llm/a"),)
    pool = Pool(name="llm/gpu", endpoints=endpoints, rewrites=(_rewrite("m", a=1),))
    picker.table.apply(pools_of((pool, Pool(name="llm/cpu", endpoints=endpoints))))

    assert picker.director.target("llm/gpu", "m", {}) == "a"
    assert [picker.director.target(*what, {}) for what in (("llm/cpu", "m"), ("llm/no", "m"), ("llm/gpu", ""))] == [
        "", "", "",
    ]  # fmt: skip


def test_any_weights_hold() -> None:
    choice = random.Random(5)
    for _ in range(50):
        weights = {f"m{number}": choice.randrange(0, 1000) for number in range(choice.randrange(1, 8))} | {"last": 1}
        targets = _targets(_rewrite("m", **weights))
        found = Counter(targets.draw("m", {}) for _ in range(10_000))
        for model, weight in weights.items():
            assert found[model] / 10_000 == pytest.approx(weight / sum(weights.values()), abs=0.001)
