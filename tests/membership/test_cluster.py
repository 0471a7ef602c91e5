"""A picker finds the endpoints of its pool in a cluster."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.membership.cluster import Wanted, pool_in
from controller.picker.config import PoolOfCluster
from controller.plugins.catalogue import BUILT_IN
from controller.resources.kinds import Refused, read
from controller.resources.snapshot import snapshot
from tests.picker.ext_proc.conftest import Served, eventually, gateway_of, served_picker
from tests.provider.kubernetes.fake import PODS, FakeApi

Json = dict[str, Any]  # Any: objects in Kubernetes' shape

POOLS = "/apis/inference.networking.k8s.io/v1/inferencepools"
POLICIES = "/apis/infergate.dev/v1alpha1/pickerpolicies"


def pod(name: str, address: str, *, app: str = "vllm", ready: bool = True, namespace: str = "llm") -> Json:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "server"}]},
        "status": {"phase": "Running", "podIP": address, "conditions": conditions},
    }


def pool(*ports: int, app: str = "vllm") -> Json:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "gpu", "namespace": "llm"},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }


def policy(**spec: Any) -> Json:  # Any: as above
    return {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "PickerPolicy",
        "metadata": {"name": "policy", "namespace": "llm"},
        "spec": {
            "targetRefs": [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "gpu"}],
            **spec,
        },
    }


def found(*documents: Json, wanted: Wanted) -> Any:  # Any: a pool, or what is read of it
    resources = []
    for index, document in enumerate(documents):
        resource = read(document, index=index)
        assert not isinstance(resource, Refused), resource
        resources.append(resource)
    return pool_in(snapshot(resources), wanted, catalogue=BUILT_IN)  # type: ignore[arg-type]  # all are resources


GPU = Wanted("llm", "gpu")


def test_every_ready_pod_and_port_is_an_endpoint() -> None:
    made = found(pool(8000, 8001), pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False), wanted=GPU)
    assert [one.address for one in made.endpoints] == ["10.0.0.1:8000", "10.0.0.1:8001"]
    assert (made.name, made.endpoints[0].name) == ("llm/gpu", "llm/a")


def test_pods_of_other_namespaces_and_labels_are_none() -> None:
    others = (pod("a", "10.0.0.1", app="other"), pod("b", "10.0.0.2", namespace="other"))
    assert found(pool(8000), *others, wanted=GPU).endpoints == ()


def test_pool_that_does_not_exist_has_no_endpoints() -> None:
    assert found(pod("a", "10.0.0.1"), wanted=GPU).endpoints == ()


def test_labels_and_ports_stand_for_a_pool() -> None:
    wanted = Wanted("llm", "gpu", {"app": "other"}, (9000, 9001))
    made = found(pool(8000), pod("a", "10.0.0.1"), pod("b", "10.0.0.2", app="other"), wanted=wanted)
    assert [one.address for one in made.endpoints] == ["10.0.0.2:9000", "10.0.0.2:9001"]


def test_policy_of_the_pool_applies() -> None:
    made = found(pool(8000), policy(usage=True, fallbacks=1), pod("a", "10.0.0.1"), wanted=GPU)
    assert (made.policy.usage, made.policy.fallbacks) == (True, 1)


def model(name: str, *, pool_group: str = "inference.networking.k8s.io", **spec: Any) -> Json:  # Any: as above
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": name, "namespace": "llm"},
        "spec": {"modelName": name, "poolRef": {"group": pool_group, "name": "gpu"}, **spec},
    }


def test_models_of_the_pool_have_their_priorities() -> None:
    models = (
        model("chat", criticality="Critical"),
        model("batch", criticality="Sheddable"),
        model("other", criticality="Critical", pool_group="inference.networking.x-k8s.io"),
    )
    made = found(pool(8000), *models, wanted=GPU)
    assert made.policy.admission.models == {"batch": -10, "chat": 10}


def test_models_that_stand_for_others_are_those_of_the_pool() -> None:
    rewrite = {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "alias", "namespace": "llm"},
        "spec": {"poolRef": {"name": "gpu"}, "rules": [{"targets": [{"modelRewrite": "base"}]}]},
    }
    documents = [pool(8000), rewrite, model("chat", targetModels=[{"name": "chat-2"}])]
    made = found(*documents, wanted=GPU).rewrites

    assert [one.source.partition(" ")[0] for one in made] == ["InferenceModel", "InferenceModelRewrite"]
    assert [(one.models, one.targets[0].model) for one in made] == [(("chat",), "chat-2"), ((), "base")]
    assert found(*documents, wanted=Wanted("llm", "gpu", {"app": "vllm"}, (8000,))).rewrites == ()


@pytest.fixture
async def server() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    fake.kinds[POOLS.rpartition("/")[0]] = {"inferencepools": "InferencePool"}
    fake.kinds[POLICIES.rpartition("/")[0]] = {"pickerpolicies": "PickerPolicy"}
    await fake.start()
    yield fake
    await fake.stop()


def settings_for(server: FakeApi, directory: Path, **settings: Any) -> dict[str, Any]:  # Any: fields of the settings
    kubeconfig = directory / "kubeconfig"
    place = {"cluster": "fake", "user": "me"}
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": place}],
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    kubeconfig.write_text(json.dumps(text))
    cluster = PoolOfCluster(name="gpu", namespace="llm", kubeconfig=kubeconfig, **settings)
    return {"pools": None, "ext_proc": {"cluster": cluster, "pool": "llm/gpu"}}


async def picks(picker: Served) -> str:
    """Where a request goes, or the status of its refusal."""
    async with gateway_of(picker.address) as gateway:
        talk = gateway.talk()
        await talk.ask("/v1/things", method="GET")
        answer, metadata = await talk.next()
        if metadata:
            return str(metadata["envoy.lb"]["x-gateway-destination-endpoint"])
        return str(getattr(answer, "status", answer))


async def test_picker_follows_an_inference_pool(server: FakeApi, tmp_path: Path) -> None:
    async with served_picker(tmp_path, **settings_for(server, tmp_path)) as picker:

        async def until(expected: str) -> None:
            async def is_so() -> bool:
                return await picks(picker) == expected

            await eventually(is_so)

        await until("503")
        await server.put(POOLS, pool(8000))
        await server.put(PODS, pod("a", "127.1.0.1"))
        await until("127.1.0.1:8000")
        await server.put(PODS, pod("b", "127.1.0.2"))
        await server.put(PODS, pod("a", "127.1.0.1", ready=False))
        await until("127.1.0.2:8000")
        await server.put(POOLS, pool(9000))
        await until("127.1.0.2:9000")
        await server.put(POLICIES, policy(fallbacks=1))
        await server.put(PODS, pod("a", "127.1.0.1"))

        async def has_a_fallback() -> bool:
            return sorted((await picks(picker)).split(",")) == ["127.1.0.1:9000", "127.1.0.2:9000"]

        await eventually(has_a_fallback)
        await server.stop()
        assert len((await picks(picker)).split(",")) == 2


async def test_picker_is_not_ready_before_the_cluster_was_read(server: FakeApi, tmp_path: Path) -> None:
    server.answers.clear()
    await server.put(POOLS, pool(8000))
    await server.put(PODS, pod("a", "127.1.0.1"))
    async with served_picker(tmp_path, **settings_for(server, tmp_path)) as picker:
        async with asyncio.timeout(10):
            while not server.asked:  # noqa: ASYNC110 - what is waited for is another task
                await asyncio.sleep(0.01)
        assert (await picker.admin.get("/readyz")).status_code == 503
        server.answers.set()

        async def is_ready() -> bool:
            return (await picker.admin.get("/readyz")).status_code == 200

        await eventually(is_ready)
        assert await picks(picker) == "127.1.0.1:8000"


async def test_picker_follows_labels_and_asks_for_nothing_else(server: FakeApi, tmp_path: Path) -> None:
    settings = settings_for(server, tmp_path, selector={"app": "vllm"}, ports=(8000,))
    await server.put(PODS, pod("a", "127.1.0.1"))
    async with served_picker(tmp_path, **settings) as picker:

        async def is_picked() -> bool:
            return await picks(picker) == "127.1.0.1:8000"

        await eventually(is_picked)
    assert {request.path for request in server.asked} == {"/apis", "/api/v1/namespaces/llm/pods"}


async def test_policy_of_a_file_takes_the_place_of_the_clusters(server: FakeApi, tmp_path: Path) -> None:
    text = {"apiVersion": "infergate.dev/v1alpha1", "kind": "PickerPolicy", "spec": {"fallbacks": 1}}
    (tmp_path / "policy.yaml").write_text(json.dumps(text))
    settings = settings_for(
        server, tmp_path, selector={"app": "vllm"}, ports=(8000, 8001), policy=tmp_path / "policy.yaml"
    )
    await server.put(PODS, pod("a", "127.1.0.1"))
    async with served_picker(tmp_path, **settings) as picker:

        async def has_a_fallback() -> bool:
            return sorted((await picks(picker)).split(",")) == ["127.1.0.1:8000", "127.1.0.1:8001"]

        await eventually(has_a_fallback)
