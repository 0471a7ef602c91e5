"""Which models the endpoints of a pool serve."""

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from controller.picker.health import Failure
from controller.picker.model_lists import ASK_EVERY, DOUBTED_EVERY, ModelLists, models_on
from controller.picker.model_names import encoded, models_of
from controller.picker.pages import Page, ScrapeFailed
from controller.pools import ExternalPicker, Pool, PoolEndpoint, pools_of

from .conftest import Picker


@dataclass
class Pods:
    """In place of the endpoints' servers: what each lists, by address."""

    lists: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def get(self, address: str) -> Page:
        self.asked.append(address)
        await asyncio.sleep(0)
        if address not in self.lists:
            raise ScrapeFailed(address)
        return self.lists[address]

    def forget(self, address: str) -> None:
        pass


def page(*models: dict[str, object], status: int = 200) -> Page:
    return Page(status, json.dumps({"object": "list", "data": models}).encode())


def names(picker: Picker) -> list[str]:
    listed = models_of(picker.table.pools["llm/gpu"], now=picker.clock())
    return [model["id"] for model in json.loads(encoded(listed))["data"]]


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def lists(picker: Picker, pods: Pods) -> ModelLists:
    return ModelLists(table=picker.table, pages=pods, clock=picker.clock)


async def test_models_of_all_endpoints_are_merged_and_sorted(picker: Picker, pods: Pods, lists: ModelLists) -> None:
    picker.serve("a", "b")
    pods.lists["a:8000"] = page({"id": "m"}, {"id": "x", "parent": "m"})
    pods.lists["b:8000"] = page({"id": "m", "created": 5}, {"id": "b"})
    await lists.ask()
    assert names(picker) == ["b", "m", "x"]


async def test_endpoints_are_asked_anew_after_a_while(picker: Picker, pods: Pods, lists: ModelLists) -> None:
    picker.serve("a")
    pods.lists["a:8000"] = page({"id": "old"})
    await lists.ask()
    pods.lists["a:8000"] = page({"id": "new"})
    picker.clock.pass_(ASK_EVERY - 1)
    await lists.ask()
    assert (names(picker), len(pods.asked)) == (["old"], 1)
    picker.clock.pass_(1)
    await lists.ask()
    assert names(picker) == ["new"]


async def test_endpoint_that_came_is_asked_at_once(picker: Picker, pods: Pods, lists: ModelLists) -> None:
    picker.serve("a")
    await lists.ask()
    picker.serve("a", "b")
    await lists.ask()
    assert pods.asked == ["a:8000", "b:8000"]


async def test_adapter_in_a_reading_that_is_not_listed_is_asked_for(
    picker: Picker, pods: Pods, lists: ModelLists
) -> None:
    picker.serve("a")
    pods.lists["a:8000"] = page({"id": "m"})
    await lists.ask()
    pods.lists["a:8000"] = page({"id": "m"}, {"id": "late", "parent": "m"})
    picker.read("a", waiting_adapters=("late",))
    picker.clock.pass_(DOUBTED_EVERY)
    await lists.ask()
    assert names(picker) == ["late", "m"]


async def test_adapter_that_stays_and_is_listed_nowhere_is_asked_for_once(
    picker: Picker, pods: Pods, lists: ModelLists
) -> None:
    picker.serve("a")
    pods.lists["a:8000"] = page({"id": "m"})
    await lists.ask()
    for _ in range(5):
        picker.read("a", running_adapters=("hidden",))
        picker.clock.pass_(DOUBTED_EVERY)
        await lists.ask()
    assert len(pods.asked) == 2


@pytest.mark.parametrize(("later", "known"), [(None, ["m"]), (page(status=503), ["m"]), (page(status=404), [])])
async def test_endpoint_that_does_not_answer_serves_what_it_did(
    picker: Picker, pods: Pods, lists: ModelLists, later: Page | None, known: list[str]
) -> None:
    picker.serve("a")
    pods.lists["a:8000"] = page({"id": "m"})
    await lists.ask()
    del pods.lists["a:8000"]
    if later is not None:
        pods.lists["a:8000"] = later
    picker.clock.pass_(ASK_EVERY)
    await lists.ask()
    assert names(picker) == known


async def test_adapters_are_known_before_they_run(picker: Picker, pods: Pods, lists: ModelLists) -> None:
    picker.serve("a")
    pods.lists["a:8000"] = page({"id": "m", "parent": None}, {"id": "tuned", "parent": "m"})
    await lists.ask()
    picker.table.digest_readings()
    memory = picker.table.pools["llm/gpu"].memory
    assert (memory.models, memory.adapters) == ({"m", "tuned"}, {"tuned"})


async def test_models_of_failing_endpoints_are_listed_only_where_all_fail(
    picker: Picker, pods: Pods, lists: ModelLists
) -> None:
    picker.serve("a", "b")
    pods.lists = {"a:8000": page({"id": "of-a"}), "b:8000": page({"id": "of-b"})}
    await lists.ask()
    picker.endpoint("a").health.failed(Failure.UNREACHABLE, request="1", now=picker.clock())
    assert "of-a" not in picker.director.models(["llm/gpu"])
    picker.endpoint("b").health.failed(Failure.UNREACHABLE, request="1", now=picker.clock())
    assert "of-a" in picker.director.models(["llm/gpu"])


def _pool(name: str, *endpoints: str, lists_models: bool = False) -> Pool:
    """With an external picker."""
    there = tuple(PoolEndpoint(f"{n}:8000", f"llm/{n}") for n in endpoints)
    return Pool(f"llm/{name}", there, external=ExternalPicker("epp.llm.svc:9002"), lists_models=lists_models)


@pytest.fixture
def shared(picker: Picker, pods: Pods) -> Picker:
    """It picks for `llm/gpu`, of a and b; b is in a pool of somebody else's as well, whose models are asked for."""
    own = Pool("llm/gpu", (PoolEndpoint("a:8000", "llm/a"), PoolEndpoint("b:8000", "llm/b")))
    picker.table.apply(pools_of((own, _pool("theirs", "b", "c", lists_models=True), _pool("silent", "d"))))
    for name in "abcd":
        pods.lists[f"{name}:8000"] = page({"id": f"m-{name}"})
    return picker


async def test_pool_with_another_picker_is_asked_for_its_models_where_somebody_wants_them(
    shared: Picker, pods: Pods, lists: ModelLists
) -> None:
    await lists.ask()
    assert sorted(pods.asked) == ["a:8000", "b:8000", "c:8000"]
    assert lists.is_complete
    assert list(shared.director.models(["llm/theirs"])) == ["m-b", "m-c"]
    assert list(shared.director.models(["llm/gpu", "llm/theirs", "llm/silent"])) == ["m-a", "m-b", "m-c"]


async def test_list_of_a_pool_with_another_picker_is_doubted_like_any(
    shared: Picker, pods: Pods, lists: ModelLists
) -> None:
    await lists.ask()
    shared.clock.pass_(DOUBTED_EVERY)
    shared.director.doubt(["llm/theirs"])
    await lists.ask()
    assert sorted(pods.asked[3:]) == ["b:8000", "c:8000"]


def test_nothing_else_is_known_of_a_pool_with_another_picker(shared: Picker) -> None:
    assert [endpoint.name for endpoint in shared.table.endpoints] == ["llm/a", "llm/b"]
    assert list(shared.table.pools) == ["llm/gpu"]
    assert shared.pick("r1", pool="llm/theirs") == "pool_unknown"


async def test_models_of_another_pickers_pool_stay_when_pools_change_and_go_with_it(
    picker: Picker, pods: Pods, lists: ModelLists
) -> None:
    theirs = _pool("theirs", "c", lists_models=True)
    picker.table.apply(pools_of((theirs,)))
    pods.lists["c:8000"] = page({"id": "m"})
    await lists.ask()
    picker.table.apply(pools_of((theirs, Pool("llm/gpu"))))
    assert list(picker.director.models(["llm/theirs"])) == ["m"]
    picker.table.apply(pools_of((Pool("llm/gpu"),)))
    assert (picker.table.listing, picker.director.models(["llm/theirs"])) == ((), {})


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"data":1}', b'{"data":[{"id":1}]}', b'{"data":[{"id":""}]}', b"\xff"]
)
def test_page_of_another_shape_lists_nothing(text: bytes) -> None:
    assert models_on(Page(200, text)) == ()


def test_paths_of_a_servers_disk_are_not_listed(picker: Picker) -> None:
    picker.serve("a")
    text = b'{"data":[{"id":"m","object":"model","created":7,"owned_by":"vllm","root":"/models/m","max_model_len":9}]}'
    picker.endpoint("a").models = models_on(Page(200, text))
    (shown,) = json.loads(encoded(models_of(picker.table.pools["llm/gpu"], now=picker.clock())))["data"]
    expected = {"id": "m", "object": "model", "created": 7, "owned_by": "vllm", "parent": None, "max_model_len": 9}
    assert shown == expected
