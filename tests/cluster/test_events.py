"""Events on a real API server."""

import asyncio
from contextlib import aclosing

from controller.kube import Api
from controller.provider.kubernetes.events import EventRecorder
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.resources.gateway_api import CONTROLLER_NAME, GatewayClass, HTTPRoute
from controller.resources.meta import Key
from controller.status.notices import Notice
from tests.cluster.objects import GATEWAY_API, Json, gateway_class, route


async def test_events_stand_beside_namespaced_and_other_objects(api: Api, namespace: str) -> None:
    long = f"{namespace}-{'x' * 63}.{'y' * 63}.{'z' * 63}"
    await api.request("POST", f"{GATEWAY_API}/namespaces/{namespace}/httproutes", route(long))
    await api.request("POST", f"{GATEWAY_API}/gatewayclasses", gateway_class(namespace))
    provider = KubernetesProvider(api)
    recorder = EventRecorder(api, held=provider.held, controller_name=CONTROLLER_NAME, instance="test")
    async with aclosing(provider.snapshots()) as snapshots:
        await anext(snapshots)
        task = asyncio.ensure_future(recorder.run())
        recorder.note(Notice(Key(HTTPRoute.group, "HTTPRoute", namespace, long), "NoMatchingParent", "no such port"))
        recorder.note(Notice(Key(GatewayClass.group, "GatewayClass", "", namespace), "Unsupported", "no such kind"))
        try:
            assert await found(api, namespace, name=long) == "no such port"
            assert await found(api, "default", name=namespace) == "no such kind"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await api.request("DELETE", f"{GATEWAY_API}/gatewayclasses/{namespace}")


async def found(api: Api, namespace: str, *, name: str) -> str:
    """The note of the Event about an object, once it is there."""
    async with asyncio.timeout(10):
        while True:
            events: Json = await api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
            notes = [item["note"] for item in events["items"] if item["regarding"]["name"] == name]
            if notes:
                return str(notes[0])
            await asyncio.sleep(0.02)
