"""A control plane of one process: the server of bundles, with its authority and the tokens that it knows."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from controller.dataplane.pki import Pair, issue, make_ca
from controller.dataplane.server import BundleServer
from controller.dataplane.tokens import Denied, Identity


@dataclass
class ControlPlane:
    directory: Path
    ca: Pair = field(default_factory=lambda: make_ca(now=datetime.now(UTC)))
    tokens: dict[str, Identity] = field(default_factory=dict)
    port: int = 0
    address: str = "127.0.0.1"
    changes: list[str] = field(default_factory=list)
    """Gateways whose reports changed."""

    def __post_init__(self) -> None:
        self.admit("good", "shop/edge")
        self.ca_file.write_bytes(self.ca.certificate)

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def admit(self, token: str, gateway: str, *, pod: str = "edge-0") -> None:
        namespace, _, name = gateway.partition("/")
        self.tokens[token] = Identity(namespace, f"infergate-{name}", pod, f"uid-{pod}", name)

    async def review(self, token: str) -> Identity | Denied:
        return self.tokens.get(token) or Denied("the token is not valid")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[BundleServer]:
        """On the same port each time."""
        server = BundleServer(
            self.review,
            lambda gateway, who: gateway == f"{who.namespace}/{who.gateway}",
            address=(self.address, self.port),
            on_report=self.changes.append,
        )
        server.use(self.certificate())
        async with server:
            self.port = server.port
            yield server

    def certificate(self, *names: str) -> Pair:
        return issue(self.ca, names or ("localhost",), now=datetime.now(UTC))

    def client(self, token: str = "good", *, ca: bytes | None = None) -> httpx.AsyncClient:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=(ca or self.ca.certificate).decode())
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, verify=context, trust_env=False, timeout=10)
