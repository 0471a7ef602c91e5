"""The API server, as raw JSON. Nothing else knows the client library.

The library's own parts do configuration, credentials and connections. Its typed models are not used, because the
resources here have models of their own, and neither is its watch, which reads lines of at most 4 MiB, gives no control
of timeouts, and makes a client of its own for each watch.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from controller.errors import (
    ApiBusy,
    ApiConflict,
    ApiDenied,
    ApiExpired,
    ApiMissing,
    ApiRefused,
    ApiUnreachable,
    SettingInvalid,
)

Json = dict[str, Any]  # an object in Kubernetes' shape

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"

_CONNECT: Final = 5.0
"""Seconds for a connection. An API server beside us answers in milliseconds."""
_TIMEOUT: Final = 30.0
"""Seconds for a call that is no watch; the API server itself gives up after 60."""
_GRACE: Final = 10.0
"""Seconds after which a watch is given up that the API server should have ended."""
_PAGE: Final = 500
"""Objects of one page of a list, as many as client-go asks for."""
_ERRORS: Final[Mapping[int, type[ApiRefused]]] = {
    401: ApiDenied,
    403: ApiDenied,
    404: ApiMissing,
    409: ApiConflict,
    410: ApiExpired,
    429: ApiBusy,
}
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)
"""A peer that vanished without a word is noticed in half a minute, on a watch without events too."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: tuple[Json, ...]
    version: str
    """resourceVersion of the whole list, from which a watch goes on."""


@dataclass(frozen=True)
class Event:
    """What a watch tells."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Json


async def configuration(kubeconfig: Path | None) -> Configuration:
    """Where the API server is and who we are: from a file, or of the pod that this process runs in.

    Raises SettingInvalid when neither says so.
    """
    found = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]  # not annotated there
        else:
            load = load_kube_config(  # type: ignore[no-untyped-call]  # as above
                config_file=str(kubeconfig), client_configuration=found, persist_config=False
            )
            await load
    except (ConfigException, OSError, ValueError) as problem:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "service account of this pod"
        raise SettingInvalid(f"{where}: {problem}") from problem
    found.connection_pool_maxsize = 0  # without a limit: each kind and namespace has a watch of its own
    return found


class Api:
    """Calls of one API server. `async with` closes its connections."""

    def __init__(self, settings: Configuration, *, timeout: float = _TIMEOUT) -> None:
        self._settings = settings
        self._timeout = timeout
        self._rest = _Rest(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rest.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        patch: str = APPLY,
        timeout: float | None = None,
    ) -> Json:
        """Makes one call and returns the object that comes back.

        patch: the media type of a PATCH's body. timeout: seconds for the whole call.
        Raises ApiUnreachable, or ApiRefused and its kin.
        """
        headers = {"Content-Type": patch} if method == "PATCH" else {}
        limit = aiohttp.ClientTimeout(total=timeout or self._timeout, sock_connect=_CONNECT)
        async with self._response(method, path, body, query=query, headers=headers, limit=limit) as response:
            return _object(await response.read())

    async def fetch(self, path: str, *, accept: str, etag: str) -> tuple[Json, str] | None:
        """(object, its ETag) in the form that `accept` names; None when `etag` is still right."""
        headers = {"Accept": accept, **({"If-None-Match": etag} if etag else {})}
        limit = aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT)
        async with self._response("GET", path, headers=headers, limit=limit) as response:
            if response.status == 304:
                return None
            return _object(await response.read()), response.headers.get("ETag", "")

    async def pages(self, path: str, *, query: Mapping[str, str | int] | None = None) -> AsyncIterator[Page]:
        """A list, in pages. Raises as `request`; ApiExpired when it took too long to read all pages."""
        token = ""
        while True:
            asked: dict[str, str | int] = {**(query or {}), "limit": _PAGE, **({"continue": token} if token else {})}
            found = await self.request("GET", path, query=asked)
            about = found.get("metadata") or {}
            yield Page(tuple(_typed(found)), str(about.get("resourceVersion", "")))
            token = about.get("continue") or ""
            if not token:
                return

    async def watch(
        self,
        path: str,
        *,
        version: str,
        seconds: float,
        query: Mapping[str, str | int] | None = None,
        grace: float = _GRACE,
    ) -> AsyncIterator[Event]:
        """What changes after `version`. Ends when the API server says so, which it does after `seconds`.

        Raises ApiExpired when `version` is too old; ApiUnreachable when the end is `grace` seconds late, because then
        nobody is at the other end; otherwise as `request`.
        """
        asked: dict[str, str | int] = {
            **(query or {}),
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(1, round(seconds)),
        }
        limit = aiohttp.ClientTimeout(total=seconds + grace, sock_connect=_CONNECT)
        async with self._response("GET", path, query=asked, limit=limit) as response:
            async for line in _lines(response.content):
                found = _object(line)
                event = Event(str(found.get("type")), found.get("object") or {})
                if event.type == "ERROR":
                    raise _refusal(int(event.object.get("code") or 500), event.object)
                yield event

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        limit: aiohttp.ClientTimeout,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self._settings.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            credentials = await self._settings.auth_settings()
            token = credentials["BearerToken"]["value"] if "BearerToken" in credentials else None
            sent = {"Accept": "application/json", **(headers or {}), **({"Authorization": token} if token else {})}
            answer: RESTResponse = await self._rest.request(  # type: ignore[no-untyped-call]  # as above
                method, url, headers=sent, body=body, _request_timeout=limit
            )
            async with answer.response as response:
                if response.status >= 400:
                    raise _refusal(response.status, _object_or_nothing(await response.read()))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            words = str(problem) or type(problem).__name__
            raise ApiUnreachable(f"API server {self._settings.host}: {words}") from problem


class _Rest(RESTClientObject):
    """The library's connections, with sockets that notice a peer that is gone."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=_socket)


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for level, option, value in _KEEPALIVE:
        made.setsockopt(level, option, value)
    return made


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; an object may have a few MiB."""
    begun: list[bytes] = []
    async for piece in content.iter_any():
        *whole, rest = piece.split(b"\n")
        for line in whole:
            begun.append(line)
            joined = b"".join(begun)
            begun.clear()
            if joined:
                yield joined
        if rest:
            begun.append(rest)


def _typed(listed: Json) -> list[Json]:
    """Items of a list with their kind, which the API server leaves out for its own kinds."""
    kind = str(listed.get("kind", "")).removesuffix("List")
    known = {"apiVersion": listed.get("apiVersion"), "kind": kind}
    return [item if "kind" in item else {**known, **item} for item in listed.get("items") or ()]


def _object(text: bytes) -> Json:
    try:
        return msgspec.json.decode(text, type=Json)
    except (msgspec.DecodeError, RecursionError) as problem:
        raise ApiUnreachable(f"API server answered with something that is no JSON object: {problem}") from problem


def _object_or_nothing(text: bytes) -> Json:
    try:
        return _object(text)
    except ApiUnreachable:
        return {"message": text[:200].decode(errors="replace")}


def _refusal(code: int, status: Json) -> ApiRefused:
    details = status.get("details") or {}
    reason, message = str(status.get("reason") or code), str(status.get("message") or "no message")
    wait = details.get("retryAfterSeconds")
    kind = ApiBusy if code >= 500 else _ERRORS.get(code, ApiRefused)
    return kind(code, reason, message, float(wait) if wait else 0.0)
