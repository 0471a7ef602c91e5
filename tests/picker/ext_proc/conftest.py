"""A picker that serves ext_proc, and a gateway that asks it as Envoy does."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from controller.extproc.decoding import decode_answer
from controller.extproc.encoding import encode_part
from controller.extproc.messages import (
    METHOD,
    Answer,
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    Metadata,
    Part,
    Phase,
    TrailersPart,
)
from controller.extproc.wire import chunks_of
from controller.picker.config import ExtProcSettings, PickerSettings
from controller.picker.ext_proc.serving import serve_gateways
from controller.plugins.types import DEFAULT_POLICY, Admission, AppliedPolicy, DetectorConfig, FlowControlConfig
from controller.pools import ModelRewrite, Pool, PoolEndpoint, encode_pools, pools_of
from tests.ports import free_port

TIMEOUT = 30.0
"""Seconds; bound of every wait. Nothing takes a tenth of it on an idle machine."""
POOL = "llm/gpu"
CHAT = "/v1/chat/completions"
DETECTOR = DetectorConfig("concurrency-detector", {"maxConcurrency": 1})
ONE_AT_A_TIME = AppliedPolicy(admission=Admission(flow_control=FlowControlConfig(saturation_detector=DETECTOR)))
"""A policy under which each endpoint takes one request, and others wait."""
ONE_WAITS = AppliedPolicy(
    admission=Admission(flow_control=FlowControlConfig(saturation_detector=DETECTOR, max_requests=1))
)
"""The same, with a queue for one."""


@dataclass
class Served:
    """A picker that serves gateways."""

    directory: Path
    address: str
    admin: httpx.AsyncClient
    health_address: str = ""

    def publish(
        self,
        *addresses: str,
        policy: AppliedPolicy = DEFAULT_POLICY,
        rewrites: tuple[ModelRewrite, ...] = (),
        pool: str = POOL,
    ) -> str:
        """Replace the pools file. Returns its etag."""
        endpoints = tuple(PoolEndpoint(address=address, name=f"llm/{n}") for n, address in enumerate(addresses))
        pools = pools_of((Pool(name=pool, endpoints=endpoints, policy=policy, rewrites=rewrites),))
        fresh = self.directory / "pools.new"
        fresh.write_bytes(encode_pools(pools))
        fresh.rename(self.directory / "pools.json")
        return pools.etag

    async def serving(
        self, *addresses: str, policy: AppliedPolicy = DEFAULT_POLICY, rewrites: tuple[ModelRewrite, ...] = ()
    ) -> None:
        """Replace the pools file, and wait until it is served."""
        etag = self.publish(*addresses, policy=policy, rewrites=rewrites)

        async def is_served() -> bool:
            return (await self.admin.get("/readyz")).text == f"ok {etag}\n"

        await eventually(is_served)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = (await self.admin.get("/metrics")).text.splitlines()
        found = (line for line in lines if line.startswith((f"{name}{{", f"{name} ")))
        return sum(float(line.rpartition(" ")[2]) for line in found if all(one in line for one in wanted))

    async def counts(self) -> tuple[float, float, float]:
        """Requests in flight, streams, bytes of bodies."""
        return (
            await self.metric("infergate_inflight_requests"),
            await self.metric("infergate_ext_proc_streams"),
            await self.metric("infergate_ext_proc_body_bytes"),
        )

    async def at_rest(self) -> None:
        """Wait until nothing is in hand any more."""

        async def is_so() -> bool:
            return await self.counts() == (0, 0, 0)

        await eventually(is_so)

    async def decisions(self) -> Any:  # Any: JSON
        return (await self.admin.get("/decisions")).json()["decisions"]


async def eventually(condition: Callable[[], Any]) -> None:  # Any: what a coroutine yields and is sent
    """Wait until a condition that asks somebody holds. Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT):
        while not await condition():  # noqa: ASYNC110 - what is waited for is another process, or as good as one
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served_picker(directory: Path, **settings: Any) -> AsyncIterator[Served]:  # Any: fields of the settings
    """A picker that serves gateways from a pools file."""
    address, admin, health = (f"127.0.0.1:{free_port()}" for _ in range(3))
    fields = {"tls": False, "drain": 0.0, "address": address, "health_address": health} | settings.pop("ext_proc", {})
    if isinstance(settings.get("pools", ""), str):
        settings["pools"] = directory / "pools.json"
    configured = PickerSettings(
        ext_proc=ExtProcSettings(**fields), metrics_address=admin, **({"grace": 1.0} | settings)
    )
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve_gateways(configured, rng=random.Random(1), stopping=stopping))
    async with httpx.AsyncClient(base_url=f"http://{admin}", timeout=TIMEOUT) as client:
        served = Served(directory, address, client, health)

        async def answers() -> bool:
            if serving.done():
                serving.result()
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/healthz")).status_code == 200
            return False

        try:
            await eventually(answers)
            yield served
        finally:
            stopping.set()
            await asyncio.wait_for(serving, TIMEOUT)


@pytest.fixture
async def picker(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_picker(tmp_path) as served:
        yield served


@dataclass
class Talk:
    """One stream, as Envoy holds it."""

    call: Any  # grpc has no types
    _opened: bool = False

    async def send(self, part: Part, metadata: Metadata | None = None) -> None:
        """Send a part; the first says that bodies are streamed both ways."""
        await self.call.write(encode_part(part, metadata=metadata, opens=not self._opened))
        self._opened = True

    async def send_raw(self, message: bytes) -> None:
        await self.call.write(message)

    async def ask(self, path: str = CHAT, *, method: str = "POST", body: bytes | None = None, **more: Any) -> None:
        """Send the headers of a request, and its body in pieces as Envoy cuts it."""
        await self.send(
            request_headers(path, method=method, ends=body is None, headers=more.pop("headers", {})), **more
        )
        if body is not None:
            for part in body_parts(body):
                await self.send(part)

    async def next(self) -> tuple[Answer, Metadata]:
        """The next answer."""
        data = await asyncio.wait_for(self.call.read(), TIMEOUT)
        if data is grpc.aio.EOF:
            raise EOFError(f"stream ended with {await self.call.code()}: {await self.call.details()}")
        answer, metadata = decode_answer(data)
        assert answer is not None
        return answer, metadata

    async def picked(self) -> str:
        """The endpoint of the answer to the request's headers."""
        answer, metadata = await self.next()
        assert isinstance(answer, HeadersAnswer), answer
        (endpoint,) = [one.value.decode() for one in answer.changes.set if one.name == "x-gateway-destination-endpoint"]
        assert metadata["envoy.lb"] == {"x-gateway-destination-endpoint": endpoint}
        return endpoint

    async def body(self, phase: Phase = Phase.REQUEST) -> tuple[bytes, list[int]]:
        """The body that comes back, up to its end, and the sizes of its pieces."""
        pieces = []
        while True:
            answer, _ = await self.next()
            assert isinstance(answer, BodyAnswer), answer
            assert (answer.is_streamed, answer.phase) == (True, phase)
            assert answer.chunk is not None
            pieces.append(answer.chunk)
            if answer.end_of_stream:
                return b"".join(pieces), [len(piece) for piece in pieces]

    async def refused(self) -> Immediate:
        answer, _ = await self.next()
        assert isinstance(answer, Immediate), answer
        return answer

    async def respond(
        self, *pieces: bytes, status: int = 200, headers: Mapping[str, str] | None = None, served: str | None = None
    ) -> None:
        """Send the answer of a model server, with its end, and take what comes back."""
        metadata = {"envoy.lb": {"x-gateway-destination-endpoint-served": served}} if served is not None else None
        await self.send(response_headers(status, ends=not pieces, headers=headers or {}), metadata)
        answer, _ = await self.next()
        assert isinstance(answer, HeadersAnswer)
        for number, piece in enumerate(pieces):
            await self.send(BodyPart(Phase.RESPONSE, piece, end_of_stream=number == len(pieces) - 1))
        if pieces:
            assert (await self.body(Phase.RESPONSE))[0] == b"".join(pieces)

    async def close(self) -> None:
        """Send no more, as Envoy does when its client is served or gone; and wait for the end."""
        await self.call.done_writing()
        assert await asyncio.wait_for(self.call.read(), TIMEOUT) is grpc.aio.EOF

    async def code(self) -> grpc.StatusCode:
        """How the stream ended, once all that came before was read."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await asyncio.wait_for(self.call.read(), TIMEOUT) is not grpc.aio.EOF:
                pass
        return await asyncio.wait_for(self.call.code(), TIMEOUT)


@dataclass
class Gateway:
    """One connection to a picker."""

    channel: Any  # grpc has no types
    talks: list[Talk] = field(default_factory=list)

    def talk(self) -> Talk:
        """Open a stream."""
        self.talks.append(Talk(self.channel.stream_stream(METHOD)()))
        return self.talks[-1]


@contextlib.asynccontextmanager
async def gateway_of(address: str, credentials: Any = None, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway that asks a picker."""
    given = [(f"grpc.{name}", value) for name, value in options.items()]
    make = grpc.aio.insecure_channel if credentials is None else grpc.aio.secure_channel
    channel = make(address, *([] if credentials is None else [credentials]), options=given)
    gateway = Gateway(channel)
    try:
        yield gateway
    finally:
        for talk in gateway.talks:
            talk.call.cancel()
        await channel.close()


@pytest.fixture
async def gateway(picker: Served) -> AsyncIterator[Gateway]:
    async with gateway_of(picker.address) as gateway:
        yield gateway


def request_headers(
    path: str = CHAT, *, method: str = "POST", ends: bool = False, headers: Mapping[str, str] | None = None
) -> HeadersPart:
    given = {":method": method, ":path": path, ":scheme": "http", ":authority": "llm.example", **(headers or {})}
    return HeadersPart(Phase.REQUEST, tuple((name, value.encode()) for name, value in given.items()), ends)


def response_headers(status: int = 200, *, ends: bool = False, headers: Mapping[str, str] | None = None) -> HeadersPart:
    given = {":status": str(status), **(headers or {})}
    return HeadersPart(Phase.RESPONSE, tuple((name, value.encode()) for name, value in given.items()), ends)


def body_parts(body: bytes, *, size: int = 16_384) -> Iterable[BodyPart]:
    """A request's body in pieces."""
    pieces = list(chunks_of(body, size=size))
    return [BodyPart(Phase.REQUEST, piece, number == len(pieces) - 1) for number, piece in enumerate(pieces)]


TRAILERS = TrailersPart(Phase.REQUEST, (("x-checksum", b"1"),))
