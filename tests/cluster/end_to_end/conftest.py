"""Infergate in a cluster: installed by Helm once for these tests, with four Gateways, and removed after them.

The cluster is the one that KUBECONFIG names. Its nodes must have the image: INFERGATE_TEST_IMAGE, or the chart's. The
release is upgraded to INFERGATE_TEST_NEXT_IMAGE, or to the same image.
"""

import asyncio
import os
import secrets
import shutil
import string
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.dataplane.pki import Pair, issue, make_ca
from controller.kube import Api
from tests.cluster.end_to_end.load import Target

Json = dict[str, Any]  # any: objects in Kubernetes' shape

CHART = Path(__file__).parent.parent.parent.parent / "charts" / "infergate"
RESOURCES = Path(__file__).parent / "resources.yaml"
COLLECTIONS = {
    "Gateway": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}


@dataclass(frozen=True)
class Release:
    """What was installed."""

    control_plane: str
    """Namespace of the control plane."""
    apps: str
    """Namespace of Gateways, routes and model servers."""
    gateway_class: str
    image: str

    def helm(self, verb: str, *settings: str, image: str) -> None:
        """Blocks until the control plane is ready. `image` has a tag; settings are values, each `name=value`."""
        repository, _, tag = image.rpartition(":")
        named = (f"gatewayClass.name={self.gateway_class}", f"image.repository={repository}", f"image.tag={tag}")
        values = [part for value in (*named, *settings) for part in ("--set", value)]
        where = ("--namespace", self.control_plane, *(("--create-namespace",) if verb == "install" else ()))
        run("helm", verb, "infergate", str(CHART), *where, *values, "--wait", "--timeout", "2m")


@dataclass(frozen=True)
class Cluster:
    """The API server, asked as administrator."""

    api: Api
    release: Release

    async def kubectl(self, *arguments: str, namespace: str = "", given: object = None) -> str:
        """`given` is the object or objects on standard input."""
        return await asyncio.to_thread(
            run, "kubectl", "--namespace", namespace or self.release.apps, *arguments, given=given
        )

    async def upgrade(self) -> None:
        """The release to the next image, or to other annotations of all pods where there is no other image."""
        image = os.environ.get("INFERGATE_TEST_NEXT_IMAGE", "")
        annotations = ("podAnnotations.upgraded=once", "gatewayClass.parameters.podAnnotations.upgraded=once")
        settings = () if image else annotations
        await asyncio.to_thread(self.release.helm, "upgrade", *settings, image=image or self.release.image)

    async def apply(self, *objects: Json) -> None:
        await self.kubectl("apply", "-f", "-", given=objects)

    async def get(self, kind: str, name: str) -> Json:
        return await self.api.request("GET", f"{COLLECTIONS[kind].format(self.release.apps)}/{name}")

    async def objects(self, kind: str, *, labels: str = "", namespace: str = "") -> list[Json]:
        path = COLLECTIONS[kind].format(namespace or self.release.apps)
        found = await self.api.request("GET", path, query={"labelSelector": labels} if labels else None)
        return list(found["items"])

    async def control_planes(self) -> list[Json]:
        """Pods of the control plane that do not end."""
        found = await self.objects(
            "Pod", labels="app.kubernetes.io/component=control-plane", namespace=self.release.control_plane
        )
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def leader(self) -> str:
        """Pod that holds the Lease; empty while nobody does."""
        leases = await self.objects("Lease", namespace=self.release.control_plane)
        return next((str(lease["spec"].get("holderIdentity") or "") for lease in leases), "")

    async def target(self, gateway: str, host: str, *, model: str = "", scheme: str = "http") -> Target:
        """A Gateway at the address and the port that its status and its first listener name."""
        found = await self.get("Gateway", gateway)
        address, port = found["status"]["addresses"][0]["value"], found["spec"]["listeners"][0]["port"]
        return Target(f"{scheme}://{address}:{port}", host, model)


@pytest.fixture(scope="package")
def release() -> Iterator[Release]:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("needs a cluster: KUBECONFIG is not set")
    for program in ("helm", "kubectl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} on PATH")
    suffix = secrets.token_hex(3)
    found = Release(f"control-plane-{suffix}", f"apps-{suffix}", f"class-{suffix}", _image())
    try:
        _install(found)
        yield found
    finally:
        _remove(found)


@pytest.fixture
def cluster(api: Api, release: Release) -> Cluster:
    return Cluster(api, release)


def run(program: str, *arguments: str, given: object = None, seconds: float = 180) -> str:
    """Output of a program. Blocks; fails with what it said."""
    text = yaml.safe_dump_all(given) if isinstance(given, list | tuple) else None
    done = subprocess.run(
        [program, *arguments],
        input=text,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stdout}"
    return done.stdout


def tls_secret(name: str, pair: Pair) -> Json:
    data = {"tls.crt": pair.certificate.decode(), "tls.key": pair.key.decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "stringData": data,
    }


def certificate(name: str) -> Pair:
    """A certificate for a host, of an authority of its own."""
    now = datetime.now(UTC)
    return issue(make_ca(now=now), [name], now=now)


def _image() -> str:
    given = os.environ.get("INFERGATE_TEST_IMAGE")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return given or f"{values['image']['repository']}:{chart['appVersion']}"


def _install(release: Release) -> None:
    release.helm("install", image=release.image)
    run("kubectl", "wait", "--for=condition=Accepted", f"gatewayclass/{release.gateway_class}", "--timeout=30s")

    run("kubectl", "create", "namespace", release.apps)
    in_apps = ("--namespace", release.apps)
    text = string.Template(RESOURCES.read_text()).substitute({"image": release.image, "class": release.gateway_class})
    objects = [*yaml.safe_load_all(text), tls_secret("secure", certificate("secure.example"))]
    run("kubectl", "apply", *in_apps, "-f", "-", given=objects)
    run("kubectl", "wait", *in_apps, "--for=condition=Programmed", "gateway", "--all", "--timeout=120s")
    run("kubectl", "wait", *in_apps, "--for=condition=Available", "deployment", "--all", "--timeout=120s")


def _remove(release: Release) -> None:
    """Gateways go first: with the namespace, they would wait half of their pods' grace period for another look."""
    pods = ("wait", "--for=delete", "pod", "--selector=app.kubernetes.io/component=data-plane", "--timeout=60s")
    for arguments in (
        ("kubectl", "delete", "gateway", "--all", "--namespace", release.apps),
        ("kubectl", *pods, "--namespace", release.apps),
        # Other tests watch all of the cluster, and want no control plane beside them.
        ("helm", "uninstall", "infergate", "--namespace", release.control_plane, "--wait", "--cascade=foreground"),
        ("kubectl", "delete", "namespace", release.apps, release.control_plane, "--wait=false"),
    ):
        subprocess.run(arguments, check=False)
