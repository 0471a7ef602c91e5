"""What becomes of resources that are created, changed and deleted."""

import asyncio
import hashlib
import ssl
import time
from urllib.parse import urlsplit

import httpx

from tests.cluster.end_to_end.conftest import Cluster, Json, certificate, tls_secret
from tests.cluster.end_to_end.load import Target, client, load, until

OF_A_GATEWAY = ("Deployment", "ReplicaSet", "Pod", "Service", "EndpointSlice", "ServiceAccount", "ConfigMap")
"""Kinds of objects that every Gateway has."""


async def test_every_gateway_answers_for_its_routes(cluster: Cluster) -> None:
    await cluster.apply(_weighted(blue=1, green=0, name="first", host="first.example"))
    wanted = {
        await cluster.target("web", "first.example"): "blue",
        await cluster.target("models", "chat.example"): "chat",
        await cluster.target("secure", "secure.example", scheme="https"): "blue",
        await cluster.target("spare", "any.example"): "blue",
    }
    async with client() as http:
        for target, model in wanted.items():
            await until(lambda: _answers(http, target, model), seconds=10, what=f"{target.host} answers")  # noqa: B023
        other = await cluster.target("models", "first.example")
        assert (await other.ask(http)).status_code == 404


async def test_status_says_how_many_instances_serve(cluster: Cluster) -> None:
    found = await cluster.get("Gateway", "web")
    conditions = {item["type"]: item for item in found["status"]["conditions"]}

    assert conditions["Programmed"]["status"] == "True"
    assert conditions["Programmed"]["message"].startswith("2 of 2 instances serve version ")
    assert conditions["Programmed"]["observedGeneration"] == found["metadata"]["generation"]


async def test_changed_weight_is_live_within_a_second(cluster: Cluster) -> None:
    await cluster.apply(_weighted(blue=1, green=0))
    target = await cluster.target("web", "weighted.example")
    async with client() as http:
        await until(lambda: _answers(http, target, "blue"), seconds=10, what="route is live")
    async with load(target, rate=40) as running:
        await cluster.apply(_weighted(blue=0, green=1))
        applied = time.monotonic()
        await until(lambda: time.monotonic() > applied + 4, seconds=10, what="later requests are answered")

    old = [at - applied for at, answer in running.answers if _model(answer) == "blue"]
    assert running.failures == []
    assert _model(running.answers[-1][1]) == "green"
    assert max(old) < 1.0


async def test_rotated_certificate_is_served_without_a_failed_request(cluster: Cluster) -> None:
    target = await cluster.target("secure", "secure.example", scheme="https")
    pair = certificate("secure.example")
    wanted = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.decode())).hexdigest()
    async with load(target) as running:
        assert await _served(target) != wanted
        await cluster.apply(tls_secret("secure", pair))

        async def is_served() -> bool:
            return await _served(target) == wanted

        await until(is_served, seconds=10, what="the certificate is served")
        await running.wait(40)

    assert running.failures == []


async def test_nothing_is_left_of_a_deleted_gateway(cluster: Cluster) -> None:
    labels = "gateway.networking.k8s.io/gateway-name=spare"
    for kind in OF_A_GATEWAY:
        assert await cluster.objects(kind, labels=labels), kind

    await cluster.kubectl("delete", "gateway", "spare", "--wait=false")

    async def is_gone(kind: str) -> bool:
        return not await cluster.objects(kind, labels=labels)

    for kind in (*OF_A_GATEWAY, "PodDisruptionBudget"):
        await until(lambda: is_gone(kind), seconds=90, what=f"every {kind} is gone")  # noqa: B023
    route = await cluster.get("HTTPRoute", "plain")
    assert [item["parentRef"]["name"] for item in route["status"]["parents"]] == ["secure"]


def _weighted(*, blue: int, green: int, name: str = "weighted", host: str = "weighted.example") -> Json:
    backends = [{"name": "blue", "port": 80, "weight": blue}, {"name": "green", "port": 80, "weight": green}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": [{"backendRefs": backends}]},
    }


async def _answers(http: httpx.AsyncClient, target: Target, model: str) -> bool:
    """Whether the model server of that name is behind a target, whichever instance of the data plane is asked."""
    asked = await asyncio.gather(*(target.ask(http) for _ in range(16)), return_exceptions=True)
    answers = [answer for answer in asked if isinstance(answer, httpx.Response) and answer.status_code == 200]
    return len(answers) == len(asked) and {_model(answer) for answer in answers} == {model}


def _model(answer: httpx.Response) -> str:
    return str(answer.json()["data"][0]["id"])


async def _served(target: Target) -> str:
    """Digest of the certificate that a client is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    place = urlsplit(target.url)
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=context, server_hostname=target.host)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(shown).hexdigest()
