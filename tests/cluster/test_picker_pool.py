"""A picker for other gateways finds its pool on a real API server, with the rights that the chart gives it."""

import os
from pathlib import Path

import pytest
import yaml

from controller.kube import MERGE, Api
from controller.picker.config import PoolOfCluster
from tests.chart.test_picker_chart import one, template
from tests.cluster.objects import pool
from tests.membership.test_cluster import picks
from tests.picker.ext_proc.conftest import Served, eventually, served_picker


async def _account(api: Api, namespace: str, directory: Path) -> Path:
    """A kubeconfig for a ServiceAccount with the role of the chart."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = one(template(), "Role")["rules"]
    await api.request("POST", f"{core}/serviceaccounts", {"metadata": {"name": "picker"}})
    await api.request("POST", f"{rbac}/roles", {"metadata": {"name": "picker"}, "rules": rules})
    binding = {
        "metadata": {"name": "picker"},
        "subjects": [{"kind": "ServiceAccount", "name": "picker", "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "picker"},
    }
    await api.request("POST", f"{rbac}/rolebindings", binding)
    answer = await api.request("POST", f"{core}/serviceaccounts/picker/token", {"spec": {}})
    return _kubeconfig(answer["status"]["token"], directory)


def _kubeconfig(token: str, directory: Path) -> Path:
    """The cluster of the tests, for whoever has a token."""
    settings = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for user in settings["users"]:
        user["user"] = {"token": token}
    (directory / "kubeconfig").write_text(yaml.safe_dump(settings))
    return directory / "kubeconfig"


async def _pod(api: Api, namespace: str, name: str, address: str) -> None:
    """A Ready pod of the pool `gpu`, which nobody runs."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    about = {"name": name, "labels": {"app": "gpu"}}
    spec = {"containers": [{"name": "server", "image": "pause"}], "nodeName": "nowhere"}
    await api.request("POST", pods, {"metadata": about, "spec": spec})
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
    await api.request("PATCH", f"{pods}/{name}/status", {"status": status}, patch=MERGE)


async def test_rights_of_the_chart_are_enough(
    api: Api, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kubeconfig = await _account(api, namespace, tmp_path)
    pools = f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace}/inferencepools"
    cluster = PoolOfCluster(name="gpu", namespace=namespace, kubeconfig=kubeconfig)
    made = pool("gpu")
    made["spec"]["endpointPickerRef"] = {"name": "picker", "port": {"number": 9002}}
    await api.request("POST", pools, made)
    settings = {"cluster": cluster, "pool": f"{namespace}/gpu"}
    async with served_picker(tmp_path, pools=None, ext_proc=settings) as picker:
        await _until(picker, "503")
        await _pod(api, namespace, "a", "10.1.2.3")
        await _until(picker, "10.1.2.3:8000")
        await api.request("PATCH", f"{pools}/gpu", {"spec": {"targetPorts": [{"number": 9000}]}}, patch=MERGE)
        await _until(picker, "10.1.2.3:9000")
    assert [record for record in caplog.records if "cannot be read" in record.message] == []


async def _until(picker: Served, expected: str) -> None:
    async def is_so() -> bool:
        return await picks(picker) == expected

    await eventually(is_so)
