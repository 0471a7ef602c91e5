"""Backends and clients of connections and datagrams that nobody reads on the way."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from tests.nginx.resources import Json

LIMIT = 5.0
"""Seconds of each conversation."""


def listener(name: str, port: int, protocol: str, **more: object) -> Json:
    return {"name": name, "port": port, "protocol": protocol, **more}


def stream_route(
    kind: str, name: str, *backends: Json, section: str, hostnames: tuple[str, ...] = (), listener_set: str = ""
) -> Json:
    """A route of connections on one listener, of the Gateway or of a ListenerSet."""
    parent = {"kind": "ListenerSet", "name": listener_set} if listener_set else {"name": "edge"}
    spec: Json = {"parentRefs": [{**parent, "sectionName": section}], "rules": [{"backendRefs": list(backends)}]}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    version = "gateway.networking.k8s.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


@dataclass
class Talker:
    """A backend that greets each client with its name, and then says again what it hears."""

    name: str
    address: str = ""
    connections: int = 0
    heard: list[bytes] = field(default_factory=list)
    """All that each client said before it had said all, in the order in which they ended."""


@asynccontextmanager
async def talk(name: str, *, tls: ssl.SSLContext | None = None, lasts: bool = False) -> AsyncIterator[Talker]:
    """`lasts` answers a client once it has said all, with the number of its bytes."""
    talker = Talker(name)
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        talker.connections += 1
        heard = b""
        try:
            writer.write(f"{name}\n".encode())
            while data := await reader.read(65536):
                heard += data
                if not lasts:
                    writer.write(data)
                    await writer.drain()
            if lasts:
                writer.write(b"%d\n" % len(heard))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            talker.heard.append(heard)
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls, backlog=1024)
    talker.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield talker
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def trusting() -> ssl.SSLContext:
    """A client's that takes any certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


@asynccontextmanager
async def dial(
    port: int, *, name: str | None = None, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway; with a name it speaks TLS, and takes any certificate."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        port,
        ssl=trusting() if name is not None else None,
        server_hostname=name,
        local_addr=(source, 0),
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def greeting(port: int, *, name: str | None = None) -> str:
    """Who answers; empty when the connection is closed instead, `refused: WHY` when TLS is refused."""
    try:
        async with asyncio.timeout(LIMIT), dial(port, name=name) as (reader, _):
            return (await reader.readline()).decode().strip()
    except ssl.SSLEOFError:
        return ""
    except ssl.SSLError as problem:
        return f"refused: {problem.reason}"
    except ConnectionError:
        return ""


async def certificate_of(port: int, name: str) -> bytes:
    """The certificate that a client gets to see, in DER."""
    async with asyncio.timeout(LIMIT), dial(port, name=name) as (_, writer):
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found


@dataclass
class Echo(asyncio.DatagramProtocol):
    """A backend that sends each datagram back, with its name in front."""

    name: str
    address: str = ""
    clients: set[object] = field(default_factory=set)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is no subclass of it
        self.address = "{}:{}".format(*transport.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.clients.add(addr)
        self.transport.sendto(self.name.encode() + b" " + data, addr)


@asynccontextmanager
async def echo(name: str) -> AsyncIterator[Echo]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(lambda: Echo(name), local_addr=("127.0.0.1", 0))
    try:
        yield made
    finally:
        transport.close()


class _Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answers.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        self.answers.put_nowait(b"")


async def ask(port: int, *datagrams: bytes, patience: float = LIMIT) -> list[bytes]:
    """The answers to datagrams that are sent one after the other from one port; fewer when one does not come."""
    loop = asyncio.get_running_loop()
    transport, heard = await loop.create_datagram_endpoint(_Heard, remote_addr=("127.0.0.1", port))
    found: list[bytes] = []
    try:
        with contextlib.suppress(TimeoutError):
            for datagram in datagrams:
                transport.sendto(datagram)
                async with asyncio.timeout(patience):
                    found.append(await heard.answers.get())
        return found
    finally:
        transport.close()


def datagram_service(name: str, *addresses: str) -> list[Json]:
    """A Service of port 80 for datagrams."""
    made: list[Json] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"port": 80, "protocol": "UDP"}]},
        }
    ]
    for number, address in enumerate(addresses):
        ip, _, port = address.rpartition(":")
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-{number}", "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ip]}],
                "ports": [{"port": int(port), "protocol": "UDP"}],
            }
        )
    return made
