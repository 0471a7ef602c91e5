"""The control plane as an instance sees it: HTTPS with a token, trusting one authority only.

The token and the authority's certificates are files that others replace; both are read anew for each request.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from controller.errors import ControlPlaneFailed
from controller.wire import (
    BUNDLES_PATH,
    POLL_WAIT,
    REPORTS_PATH,
    Delivery,
    Statement,
    decode_delivery,
    encode_statement,
)

_CONNECT: Final = 5.0
"""Seconds for a connection; a control plane on another node takes some milliseconds."""
_LATENESS: Final = 10.0
"""Seconds that an answer may take beyond what was asked for."""
_PIECE: Final = 10.0
"""Seconds between two pieces of an answer."""


@dataclass(frozen=True)
class Access:
    """How the control plane is reached."""

    server: str
    """`https://HOST:PORT`."""
    gateway: str
    """`namespace/name`."""
    token_file: Path
    ca_file: Path


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def addresses_of(host: str, port: int) -> Sequence[str]:
    """IP addresses of a host, sorted. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return sorted({str(address[0]) for *_, address in found})


class ControlPlane:
    """A line to the control plane, kept open between requests."""

    def __init__(self, access: Access, *, resolve: Resolve | None = None) -> None:
        """`resolve` finds the addresses of a host and port; None: the system's resolver."""
        self._access = access
        self._resolve = resolve or addresses_of
        self._trusted = b""
        self._client: httpx.AsyncClient | None = None
        url = urlsplit(access.server)
        self._host, self._port = url.hostname or "", url.port or 443

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def fetch(self, *, version: str, etag: str, wait: float = POLL_WAIT) -> Delivery | None:
        """What is newer than a version and an etag of pools; None when nothing came up in `wait` seconds.

        Raises ControlPlaneFailed.
        """
        answer = await self._request(
            "GET",
            f"{self._access.server}{BUNDLES_PATH}/{self._access.gateway}",
            params={"version": version, "etag": etag, "wait": f"{wait:g}"},
            timeout=httpx.Timeout(_PIECE, connect=_CONNECT, read=wait + _LATENESS),
        )
        if answer.status_code == 204:
            return None
        try:
            delivery = decode_delivery(answer.content)
        except ValueError as error:
            raise ControlPlaneFailed(f"{self._access.server} sent what is no delivery: {error}") from error
        if delivery.gateway != self._access.gateway:
            raise ControlPlaneFailed(f"{self._access.server} sent a delivery for {delivery.gateway}")
        return delivery

    async def tell(self, statement: Statement) -> None:
        """Report to each replica of the control plane, by the addresses of its name.

        The one that writes statuses is among them. Raises ControlPlaneFailed when none has taken it.
        """
        try:
            async with asyncio.timeout(_CONNECT):
                addresses = await self._resolve(self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise ControlPlaneFailed(f"{self._host} cannot be resolved: {error or 'timeout'}") from error
        told = await asyncio.gather(*(self._tell(address, statement) for address in addresses), return_exceptions=True)
        failures = [each for each in told if isinstance(each, BaseException)]
        for failure in failures:
            if len(failures) == len(told) or not isinstance(failure, ControlPlaneFailed):
                raise failure

    async def _tell(self, address: str, statement: Statement) -> None:
        host = f"[{address}]" if ":" in address else address
        await self._request(
            "POST",
            f"https://{host}:{self._port}{REPORTS_PATH}/{self._access.gateway}",
            content=encode_statement(statement),
            headers={"host": urlsplit(self._access.server).netloc},
            # The certificate is for the name, whatever the address.
            extensions={"sni_hostname": self._host},
            timeout=httpx.Timeout(_CONNECT),
        )

    async def _request(
        self,
        method: str,
        url: str,
        *,
        timeout: httpx.Timeout,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        extensions: dict[str, str] | None = None,
    ) -> httpx.Response:
        token, client = await self._token(), await self._trusting_client()
        try:
            answer = await client.request(
                method,
                url,
                params=params,
                content=content,
                headers={**(headers or {}), "authorization": f"Bearer {token}"},
                extensions=extensions,
                timeout=timeout,
            )
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            # RuntimeError: the client was closed because the authority is another one.
            raise ControlPlaneFailed(f"{url} does not answer: {str(error) or type(error).__name__}") from error
        if answer.status_code not in (200, 204):
            raise ControlPlaneFailed(f"{url} answers {answer.status_code}: {answer.text[:200]}")
        return answer

    async def _token(self) -> str:
        try:
            return (await asyncio.to_thread(self._access.token_file.read_text)).strip()
        except (OSError, ValueError) as error:
            raise ControlPlaneFailed(f"token {self._access.token_file} cannot be read: {error}") from error

    async def _trusting_client(self) -> httpx.AsyncClient:
        path = self._access.ca_file
        try:
            trusted = await asyncio.to_thread(path.read_bytes)
            if self._client is None or trusted != self._trusted:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.load_verify_locations(cadata=trusted.decode("ascii"))
                async with AsyncExitStack() as stack:
                    if self._client is not None:
                        stack.push_async_callback(self._client.aclose)
                    self._client = httpx.AsyncClient(verify=context, trust_env=False)
                    self._trusted = trusted
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ControlPlaneFailed(f"{path} holds no certificates to trust: {error}") from error
        return self._client
