"""The Helm chart on a real API server: installed, upgraded, removed, and what its roles are good for."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.dataplane.manifests import ControlPlane, manifests
from controller.dataplane.pki import Authority, make_ca
from controller.dataplane.provision import Provisioner
from controller.dataplane.secret_store import SecretStore
from controller.errors import ApiMissing, ApiRefused
from controller.provider.kubernetes.versions import DEFINITIONS
from controller.resources.gateway_api import CONTROLLER_NAME, GROUP, Gateway, GatewayClass
from controller.resources.kinds import MODELS
from controller.resources.meta import Key
from controller.resources.parameters import GatewayParameters
from controller.resources.snapshot import snapshot
from controller.topology.build import build
from tests.cluster.plain_api import PlainApi, restricted_pod

Json = dict[str, Any]  # any: objects in Kubernetes' shape

CHART = Path(__file__).parent.parent.parent / "charts" / "infergate"
CLASSES = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Release:
    """One release in a namespace of its own."""

    def __init__(self, api: PlainApi, kubeconfig: Path) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.namespace = f"chart-{secrets.token_hex(4)}"
        self.class_name = self.namespace

    @property
    def account(self) -> PlainApi:
        """The API server as the control plane sees it."""
        return PlainApi(self.kubeconfig, user=f"system:serviceaccount:{self.namespace}:infergate")

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/infergate"

    async def helm(self, *arguments: str) -> None:
        program = shutil.which("helm")
        if program is None:
            pytest.skip("needs helm on PATH")
        await _output(program, *arguments, "--namespace", self.namespace)

    async def kubectl(self, *arguments: str) -> str:
        program = shutil.which("kubectl")
        if program is None:
            pytest.skip("needs kubectl on PATH")
        return await _output(program, *arguments)

    async def install(self, verb: str, *values: str) -> None:
        more = ("--create-namespace",) if verb == "install" else ()
        settings = [part for value in values for part in ("--set", value)]
        named = ("--set", f"gatewayClass.name={self.class_name}")
        await self.helm(verb, "infergate", str(CHART), *more, *named, *settings)


async def _output(*command: str) -> str:
    pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=both)
    async with asyncio.timeout(120):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode()


@pytest.fixture
async def release() -> AsyncIterator[Release]:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("needs a cluster: KUBECONFIG is not set")
    async with PlainApi(Path(kubeconfig)) as api:
        found = Release(api, Path(kubeconfig))
        await found.install("install")
        yield found
        await found.helm("uninstall", "infergate", "--ignore-not-found")
        await api.request("DELETE", f"/api/v1/namespaces/{found.namespace}")


async def test_release_is_upgraded_and_removed_and_definitions_stay(release: Release) -> None:
    before = await release.api.request("GET", release.path)
    await release.install("upgrade", "replicas=3", "gatewayClass.parameters.replicas=4")
    after = await release.api.request("GET", release.path)
    of_class = await release.api.request("GET", f"{CLASSES}/{release.class_name}")

    assert (before["spec"]["replicas"], after["spec"]["replicas"]) == (2, 3)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert of_class["spec"]["parametersRef"]["namespace"] == release.namespace

    await release.helm("uninstall", "infergate")
    with pytest.raises(ApiMissing):
        await release.api.request("GET", release.path)
    with pytest.raises(ApiMissing):
        await release.api.request("GET", f"{CLASSES}/{release.class_name}")
    assert await release.api.request("GET", f"{CRDS}/gatewayparameters.infergate.dev")


async def test_control_plane_fits_the_restricted_standard(release: Release) -> None:
    template = (await release.api.request("GET", release.path))["spec"]["template"]

    assert await restricted_pod(release.api, template, namespace=release.namespace)


async def test_definitions_are_upgraded_as_the_page_says(release: Release) -> None:
    page = (CHART.parent.parent / "docs" / "install.md").read_text()
    command = "apply --server-side --force-conflicts -f"
    assert f"kubectl {command} charts/infergate/crds" in page

    told = await release.kubectl(*command.split(), str(CHART / "crds"))

    assert told.count("serverside-applied") == 2


async def test_parameters_are_printed_in_columns(release: Release) -> None:
    await release.install(
        "upgrade", "gatewayClass.parameters.replicas=4", "gatewayClass.parameters.service.type=NodePort"
    )
    head, row = (await release.kubectl("get", "gwparams", "--namespace", release.namespace)).splitlines()

    assert head.split() == ["NAME", "REPLICAS", "MOST", "SERVICE", "AGE"]
    assert row.split()[:3] == ["infergate", "4", "NodePort"]


async def test_control_plane_may_read_every_kind(release: Release) -> None:
    async with release.account as account:
        for model in MODELS:
            for group in (model.group, *model.former_groups):
                resource = {"group": group, "resource": _plural(model.kind_name()), "verb": "watch"}
                assert await _may(account, resource), resource


async def test_control_plane_may_do_no_more_than_it_needs(release: Release) -> None:
    async with release.account as account:
        for group, resource, verb in (
            ("", "services", "delete"),
            ("", "secrets", "create"),
            ("", "pods", "create"),
            ("apps", "deployments", "delete"),
            ("rbac.authorization.k8s.io", "clusterroles", "create"),
            ("apiextensions.k8s.io", "customresourcedefinitions", "list"),
            ("gateway.networking.k8s.io", "gateways", "update"),
        ):
            assert not await _may(account, {"group": group, "resource": resource, "verb": verb}), (resource, verb)
        own = {"group": "", "resource": "secrets", "namespace": release.namespace}
        assert not await _may(account, {**own, "verb": "update", "name": "of-others"})
        assert await _may(account, {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"})
        lease = {"group": "coordination.k8s.io", "resource": "leases", "verb": "update"}
        assert await _may(account, {**lease, "namespace": release.namespace})


async def test_control_plane_of_chosen_namespaces_makes_events_there_and_in_default(release: Release) -> None:
    await release.install("upgrade", f"watchNamespaces={{{release.namespace}}}")
    event = {"group": "events.k8s.io", "resource": "events", "verb": "create"}
    spaces = (release.namespace, "default", "kube-system")
    async with release.account as account:
        allowed = [space for space in spaces if await _may(account, {**event, "namespace": space})]

    assert allowed == [release.namespace, "default"]


async def test_control_plane_looks_at_definitions_by_their_names(release: Release) -> None:
    definition = {"group": "apiextensions.k8s.io", "resource": "customresourcedefinitions", "verb": "get"}
    async with release.account as account:
        allowed = {name for name in (*DEFINITIONS, "of-others") if await _may(account, _named(definition, name))}

    assert allowed == {*DEFINITIONS}


def _named(definition: Json, name: str) -> Json:
    return {**definition, "name": f"{name}.{GROUP}"}


async def test_control_plane_may_keep_its_authority(release: Release) -> None:
    async with release.account as account:
        store = SecretStore(account, release.namespace, "infergate-ca")
        first, second = (Authority(make_ca(now=datetime.now(UTC))) for _ in range(2))
        assert await store.replace(None, first) == first
        assert await store.replace(first, second) == second
        assert await store.load() == second


async def test_control_plane_may_provision_and_tidy_up(release: Release) -> None:
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{release.namespace}/gateways"
    spec = {"gatewayClassName": "any", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    head = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
    made = await release.api.request("POST", path, {**head, "metadata": {"name": "web"}, "spec": spec})
    key = Key("gateway.networking.k8s.io", "Gateway", release.namespace, "web")
    async with release.account as account:
        provisioner = Provisioner(account)
        scaled = await provisioner.provision(key, _objects(made, {"autoscaling": {"maxReplicas": 3}}))
        single = await provisioner.provision(key, _objects(made, {"replicas": 1}))
        with pytest.raises(ApiRefused, match="cannot delete"):
            await account.request("DELETE", f"/api/v1/namespaces/{release.namespace}/services/infergate-web")

    assert (scaled.problems, single.problems) == ((), ())
    assert "HorizontalPodAutoscaler" in scaled.changed
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Deployment"} == set(single.changed)


def _objects(gateway: Json, parameters: Json) -> tuple[Json, ...]:
    class_spec = {"controllerName": CONTROLLER_NAME}
    reference = {"group": "infergate.dev", "kind": "GatewayParameters", "name": "p"}
    spec = {**gateway["spec"], "infrastructure": {"parametersRef": reference}}
    metadata = {"name": "p", "namespace": gateway["metadata"]["namespace"]}
    found = snapshot(
        [
            GatewayClass.model_validate(
                {"apiVersion": "v1", "kind": "GatewayClass", "metadata": {"name": "any"}, "spec": class_spec}
            ),
            Gateway.model_validate({**gateway, "spec": spec}),
            GatewayParameters.model_validate(
                {"apiVersion": "v1alpha1", "kind": "GatewayParameters", "metadata": metadata, "spec": parameters}
            ),
        ]
    )
    (state,) = build(found, controller_name=CONTROLLER_NAME).gateways
    return manifests(state, control_plane=ControlPlane("infergate:test", "https://infergate:8443", "PEM"))


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("cy"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("ss") else name if name.endswith("s") else f"{name}s"


async def _may(account: PlainApi, resource: Json) -> bool:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    found = await account.request("POST", path, {**head, "spec": {"resourceAttributes": resource}})
    return bool(found["status"]["allowed"])
