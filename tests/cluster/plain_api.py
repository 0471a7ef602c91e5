"""Calls of the API server that KUBECONFIG names, as administrator or as somebody else."""

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.errors import ApiMissing, ApiRefused

Json = dict[str, Any]  # any: objects in Kubernetes' shape


class PlainApi:
    """One client; `async with` closes it. user: who calls, where it is not the administrator."""

    def __init__(self, kubeconfig: Path, *, user: str = "") -> None:
        found = yaml.safe_load(kubeconfig.read_text())
        cluster, admin = found["clusters"][0]["cluster"], found["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {admin['token']}"} if "token" in admin else {}
        headers |= {"Impersonate-User": user} if user else {}
        if "client-certificate-data" in admin:
            pair = kubeconfig.with_name("client.pem")
            pair.write_bytes(
                base64.b64decode(admin["client-certificate-data"]) + base64.b64decode(admin["client-key-data"])
            )
            context.load_cert_chain(pair)
        self._client = httpx.AsyncClient(base_url=cluster["server"], headers=headers, verify=context, timeout=30)

    async def __aenter__(self) -> "PlainApi":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json:
        """A PATCH is a server-side apply. Raises ApiRefused."""
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        answer = await self._client.request(
            method, path, json=body, params=dict(query or {}), headers={"Content-Type": kind}
        )
        found: Json = answer.json()
        if answer.status_code >= 400:
            refusal = ApiMissing if answer.status_code == 404 else ApiRefused
            raise refusal(answer.status_code, found.get("reason", ""), found.get("message", ""))
        return found


async def restricted_pod(api: PlainApi, template: Json, *, namespace: str) -> Json:
    """A pod of a template as it would be in a namespace that enforces the Pod Security Standard restricted.

    Raises ApiRefused, which tells what does not fit.
    """
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": label}}
    await api.request("PATCH", f"/api/v1/namespaces/{namespace}", head, query={"fieldManager": "tests"})
    pod = {"metadata": {"generateName": "restricted-"}, "spec": template["spec"]}
    return await api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, query={"dryRun": "All"})
