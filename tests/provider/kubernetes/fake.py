"""An API server in this process, over real HTTP: lists in pages, watches, conflicts, and whatever can go wrong."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from controller.kube import Api

Json = dict[str, Any]  # an object of the API

ROUTES = "/apis/gateway.networking.k8s.io/v1/httproutes"
PODS = "/api/v1/pods"
CONFIG_MAPS = "/api/v1/configmaps"
TLS_POLICIES = "/apis/gateway.networking.k8s.io/v1/backendtlspolicies"

KINDS = {
    "/api/v1": {
        "configmaps": "ConfigMap",
        "pods": "Pod",
        "services": "Service",
        "secrets": "Secret",
        "namespaces": "Namespace",
    },
    "/apis/discovery.k8s.io/v1": {"endpointslices": "EndpointSlice"},
    "/apis/gateway.networking.k8s.io/v1": {
        "gatewayclasses": "GatewayClass",
        "gateways": "Gateway",
        "httproutes": "HTTPRoute",
        "backendtlspolicies": "BackendTLSPolicy",
    },
}


def route(name: str, *, namespace: str = "demo", path: str = "/") -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"matches": [{"path": {"value": path}}]}]},
    }


class FakeApi:
    """Objects by the path of their list over all namespaces, such as ROUTES."""

    def __init__(self) -> None:
        self.kinds = {prefix: dict(resources) for prefix, resources in KINDS.items()}
        self.asked: list[web.BaseRequest] = []
        """Requests, oldest first."""
        self.fault: Callable[[web.BaseRequest], web.StreamResponse | None] = lambda request: None
        """Answers in place of the server when it returns something."""
        self.oldest = 0
        """Watches from a version below this one have expired."""
        self.answers = asyncio.Event()
        """Requests hang while it is not set."""
        self.answers.set()
        self._objects: dict[str, dict[tuple[str, str], Json]] = {}
        self._history: list[tuple[int, str, Json]] = []
        self._versions = itertools.count(1)
        self._version = 0
        self._changed = asyncio.Condition()
        self._watches: set[asyncio.Task[Any]] = set()
        self._running: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._runner: web.ServerRunner | None = None
        self.port = 0

    # What a test does

    async def put(self, path: str, document: Json) -> Json:
        """Creates or replaces an object."""
        metadata = document["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        before = self._objects.setdefault(path, {}).get(key)
        self._version = next(self._versions)
        about = {"uid": f"uid-{self._version}", "generation": 1, "creationTimestamp": "2025-01-01T00:00:00Z"}
        if before is not None:
            about = {name: before["metadata"][name] for name in about}
        stored = {**document, "metadata": {**about, **metadata, "resourceVersion": str(self._version)}}
        self._objects[path][key] = stored
        await self._tell("MODIFIED" if before else "ADDED", path, stored)
        return stored

    async def delete(self, path: str, name: str, *, namespace: str = "demo", tell: bool = True) -> None:
        gone = self._objects[path].pop((namespace, name))
        self._version = next(self._versions)
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self._version)}}
        if tell:
            await self._tell("DELETED", path, gone)

    async def bookmark(self, path: str) -> int:
        """Tells watches of one kind that nothing happened to it until now."""
        self._version = next(self._versions)
        await self._tell("BOOKMARK", path, {"metadata": {"resourceVersion": str(self._version)}})
        return self._version

    def get(self, path: str, name: str, *, namespace: str = "demo") -> Json:
        return self._objects[path][namespace, name]

    def all(self, path: str) -> list[Json]:
        return list(self._objects.get(path, {}).values())

    def expire(self) -> None:
        """Forgets the history up to here."""
        self.oldest = self._version + 1
        self.cut()

    def cut(self) -> None:
        """Breaks off every watch."""
        for task in list(self._watches):
            task.cancel()

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            self.cut()
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def client(self, *, timeout: float = 5.0) -> AsyncIterator[Api]:
        settings = Configuration(host=f"http://127.0.0.1:{self.port}")
        settings.connection_pool_maxsize = 0
        async with Api(settings, timeout=timeout) as api:
            yield api

    def lists(self, path: str) -> list[web.BaseRequest]:
        return [item for item in self.asked if item.path == path and "watch" not in item.query]

    def watches(self, path: str) -> list[web.BaseRequest]:
        return [item for item in self.asked if item.path == path and "watch" in item.query]

    def most_at_once(self, method: str) -> int:
        return self._most[method]

    # What the server does

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        method = request.method
        self._running[method] += 1
        self._most[method] = max(self._most[method], self._running[method])
        try:
            await asyncio.sleep(0)  # so that requests that are here at the same time meet
            await self.answers.wait()
            return await self._respond(request)
        finally:
            self._running[method] -= 1

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self.fault(request)
        if answer is not None:
            return answer
        if request.path == "/apis":
            return self._discovery(request)
        place, name, subresource = self._place(request.path)
        if place is None:
            return refusal(404, "NotFound")
        path, namespace = place
        if "watch" in request.query:
            return await self._watch(request, path, namespace)
        if request.method == "GET" and not name:
            return self._list(request, path, namespace)
        return await self._object(request, path, namespace, name, subresource)

    def _place(self, asked: str) -> tuple[tuple[str, str] | None, str, str]:
        """((path of the list, namespace), name, subresource)."""
        for prefix, resources in self.kinds.items():
            rest = asked.removeprefix(f"{prefix}/").split("/") if asked.startswith(f"{prefix}/") else []
            namespace = ""
            if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
                namespace, rest = rest[1], rest[2:]
            if rest and rest[0] in resources:
                name, subresource = [*rest[1:], "", ""][:2]
                return (f"{prefix}/{rest[0]}", namespace), name, subresource
        return None, "", ""

    def _discovery(self, request: web.BaseRequest) -> web.StreamResponse:
        etag = f'"{json.dumps(self.kinds, sort_keys=True)}"'.replace(" ", "").replace('"', "'")
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        items = []
        for prefix, resources in self.kinds.items():
            if prefix.startswith("/apis/"):
                _, _, group, version = prefix.split("/")
                listed = [{"resource": name, "responseKind": {"kind": kind}} for name, kind in resources.items()]
                items.append({"metadata": {"name": group}, "versions": [{"version": version, "resources": listed}]})
        return web.json_response({"kind": "APIGroupDiscoveryList", "items": items}, headers={"ETag": etag})

    def _list(self, request: web.BaseRequest, path: str, namespace: str) -> web.StreamResponse:
        held = sorted(self._objects.get(path, {}).items())
        found = [item for (space, _), item in held if namespace in ("", space) and _is_selected(request, item)]
        begin, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "500"))
        metadata: Json = {"resourceVersion": str(self._version)}
        if begin + limit < len(found):
            metadata["continue"] = str(begin + limit)
        return web.json_response({"metadata": metadata, "items": found[begin : begin + limit]})

    async def _watch(self, request: web.BaseRequest, path: str, namespace: str) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if version < self.oldest - 1:
            gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
            await response.write(json.dumps(gone).encode() + b"\n")
            return response
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        try:
            await self._events(request, response, path, namespace, version)
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._watches.discard(task)
        return response

    async def _events(
        self, request: web.BaseRequest, response: web.StreamResponse, path: str, namespace: str, version: int
    ) -> None:
        while True:
            for number, place, event in list(self._history):
                space = event["object"]["metadata"].get("namespace", "")
                is_meant = namespace in ("", space) and _is_selected(request, event["object"])
                if number > version and place == path and (event["type"] == "BOOKMARK" or is_meant):
                    await response.write(json.dumps(event).encode() + b"\n")
                version = max(version, number)
            async with self._changed:
                while self._version <= version:
                    await self._changed.wait()

    async def _object(
        self, request: web.BaseRequest, path: str, namespace: str, name: str, subresource: str
    ) -> web.StreamResponse:
        before = self._objects.get(path, {}).get((namespace, name))
        body: Json = json.loads(await request.text() or "{}")
        if request.method == "POST":
            created = body["metadata"]["name"]
            if (namespace, created) in self._objects.get(path, {}):
                return refusal(409, "AlreadyExists")
            body["metadata"]["namespace"] = namespace
            return web.json_response(await self.put(path, body), status=201)
        if before is None:
            return refusal(404, "NotFound")
        if request.method == "GET":
            return web.json_response(before)
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != before["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict")
        if subresource == "status":
            return web.json_response(
                await self.put(path, {**before, "status": {**before.get("status", {}), **body["status"]}})
            )
        return web.json_response(await self.put(path, {**before, "spec": body["spec"]}))

    async def _tell(self, type_: str, path: str, document: Json) -> None:
        self._history.append((self._version, path, {"type": type_, "object": document}))
        async with self._changed:
            self._changed.notify_all()


def _is_selected(request: web.BaseRequest, item: Json) -> bool:
    """Whether the selectors of a request mean an object, as far as they name it or one of its labels."""
    field, _, name = request.query.get("fieldSelector", "").partition("=")
    label, _, value = request.query.get("labelSelector", "").partition("=")
    metadata = item["metadata"]
    return (field != "metadata.name" or metadata["name"] == name) and (
        not label or metadata.get("labels", {}).get(label) == value
    )


def refusal(code: int, reason: str, *, wait: int = 0) -> web.Response:
    details = {"retryAfterSeconds": wait} if wait else {}
    return web.json_response(
        {"code": code, "reason": reason, "message": reason.lower(), "details": details}, status=code
    )
