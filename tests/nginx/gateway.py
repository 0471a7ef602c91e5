"""A whole gateway for a test: nginx and the picker as child processes, the control plane in the test's event loop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import yaml

from controller.agent import client
from controller.agent import state as places
from controller.agent.apply import Options
from controller.agent.nginx import Nginx
from controller.bundle import Bundle, BundleFile
from controller.commands import statuses
from controller.commands.run import picker_command
from controller.dataplane.base import Report
from controller.dataplane.local import LocalDataPlane
from controller.pools import POOLS_FILE, decode_pools
from controller.provider.file import FileProvider, read
from controller.reconcile import Reconciler, State
from controller.render.files import RenderSettings
from tests.nginx.resources import Json, as_yaml, listener
from tests.nginx.resources import gateway as gateway_resource
from tests.ports import free_ports

SECONDS = 15.0
"""Bound of every wait. Nothing takes a tenth of it on an idle machine of two cores."""


async def until(condition: Callable[[], object], *, seconds: float = SECONDS) -> None:
    """Waits until a condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.01)


async def eventually(condition: Callable[[], Awaitable[object]], *, seconds: float = SECONDS) -> None:
    """Waits until a condition that asks somebody holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


@dataclass
class Gateway:
    """A gateway that runs. Its files are `gateway.yaml` and those that tests apply."""

    directory: Path
    state: places.State
    port: int
    """Of the listener `http`."""
    data_plane: LocalDataPlane
    turns: list[State] = field(default_factory=list)
    """What the control plane knew after each turn, oldest first."""
    task: asyncio.Task[None] | None = None
    mode: str = "picked"
    """Of requests that are picked for, as the access log says."""
    _turned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hear(self, state: State) -> None:
        self.turns.append(state)
        self._turned.set()

    def write(self, name: str, *documents: Json | list[Json]) -> None:
        """Writes a file without waiting for it; without documents the file goes."""
        path = self.directory / name
        if not documents:
            path.unlink(missing_ok=True)
            return
        staged = path.with_name(f".{name}")
        staged.write_text(as_yaml(*documents))
        staged.replace(path)

    async def apply(self, name: str, *documents: Json | list[Json]) -> State:
        """Writes a file, or takes it away, and waits until nginx, the picker and the relay serve what it says."""
        self.write(name, *documents)
        state = await self.live()
        pools = decode_pools(self.state.pools.read_bytes())
        if self.data_plane.picker_pid is not None:
            await eventually(lambda: self._is_read(pools.etag))
        if any(pool.external is not None for pool in pools.pools):
            await eventually(lambda: self._is_relayed(pools.etag))
        return state

    async def _is_relayed(self, etag: str) -> bool:
        answer = await client.ask(self.state, "/readyz", socket=places.RELAY_SOCKET, timeout=5.0)
        return answer.body.decode() == f"ok {etag}\n"

    async def _is_read(self, etag: str) -> bool:
        return (await self.pools()).get("etag") == etag

    async def live(self) -> State:
        """Waits until the control plane says that what the directory holds is served."""
        wanted = read(self.directory)
        async with asyncio.timeout(SECONDS):
            while not self.turns or self.turns[-1].snapshot != wanted:
                await self._turn()
        return self.turns[-1]

    async def _turn(self) -> None:
        self._turned.clear()
        waiting = asyncio.ensure_future(self._turned.wait())
        await asyncio.wait({waiting, *([self.task] if self.task else [])}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.task is not None and self.task.done():
            self.task.result()
            raise RuntimeError("the control plane ended")

    def status(self, kind: str, name: str) -> Json:
        """Status of a resource as it would be written to a cluster."""
        items = yaml.safe_load(statuses.as_yaml(self.turns[-1]))["items"]
        found = next(item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name))
        status: Json = found["status"]
        return status

    def workers(self) -> set[int]:
        """Process ids of nginx's workers, those that are retiring too."""
        master = self.data_plane.nginx_pid
        return set(map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split()))

    async def pools(self) -> Json:
        """What the picker shows of its pools."""
        answer = await client.ask(self.state, "/pools", socket=places.PICKER_SOCKET, timeout=5.0)
        return dict(json.loads(answer.body)) if answer.status == 200 else {}

    def picker_pids(self) -> tuple[int, ...]:
        """Processes that pick; none while one of them is not there."""
        pid = self.data_plane.picker_pid
        return () if pid is None else (pid,)

    def picks_anew(self, before: Sequence[int]) -> bool:
        """Whether other processes pick than those before."""
        pids = self.picker_pids()
        return bool(pids) and not set(pids) & set(before)

    async def relay(self) -> Json:
        """What the relay tells of pickers and exchanges; empty when it does not answer."""
        answer = await client.ask(self.state, "/pickers", socket=places.RELAY_SOCKET, timeout=5.0)
        return dict(json.loads(answer.body)) if answer.status == 200 else {}

    async def metrics(self, socket: str = places.PICKER_SOCKET) -> dict[str, float]:
        """The metrics of the picker, or of another process, by name and labels as they are written."""
        answer = await client.ask(self.state, "/metrics", socket=socket, timeout=5.0)
        lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def in_flight(self) -> int:
        """Requests that the picker counts as in flight; -1 when it does not answer."""
        return int((await self.pools()).get("inFlight", -1))

    async def counts(self, number: int) -> bool:
        """Whether the picker counts so many requests in flight."""
        return await self.in_flight() == number

    async def idle(self) -> None:
        """Waits until the picker counts nothing in flight."""
        await eventually(lambda: self.counts(0))

    async def idle_at(self, address: str) -> None:
        """Waits until the picker counts nothing in flight to an endpoint, in a pool or leaving."""

        async def is_idle() -> bool:
            view = await self.pools()
            known = [*view["leaving"], *(endpoint for pool in view["pools"] for endpoint in pool["endpoints"])]
            return not any(endpoint["inFlight"] for endpoint in known if endpoint["address"] == address)

        await eventually(is_idle)

    async def knows(self, pool: str, *addresses: str) -> None:
        """Waits until the picker has read these endpoints of a pool, and no others."""
        await eventually(lambda: self._shows(pool, addresses, preferred=False))

    async def prefers(self, pool: str, *addresses: str) -> None:
        """Waits until the picker found all of these endpoints well; one that it has not asked yet comes last."""
        await eventually(lambda: self._shows(pool, addresses, preferred=True))

    async def _shows(self, pool: str, addresses: Sequence[str], *, preferred: bool) -> bool:
        pools = (await self.pools()).get("pools", ())
        endpoints: list[Json] = next((item["endpoints"] for item in pools if item["name"] == pool), [])
        shown = {item["address"] for item in endpoints if item["isPreferred"] or not preferred}
        return shown == set(addresses)

    def log_lines(self) -> list[bytes]:
        """The access log, whole lines only."""
        path = self.state.root / "access.log"
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []

    async def logged(self, request_id: str) -> Json:
        """The line of a request, once it is written. Raises ValueError when it is not JSON in UTF-8."""
        mark = f'"request_id":"{request_id}"'.encode()
        await until(lambda: any(mark in line for line in self.log_lines()))
        (line,) = (line for line in self.log_lines() if mark in line)
        return dict(json.loads(line.decode()))


@asynccontextmanager
async def _ready(root: Path) -> AsyncIterator[None]:
    """In place of a picker that is played later: says that it is ready and has read what there is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = f"ok {decode_pools((root / POOLS_FILE).read_bytes()).etag}".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(root / places.PICKER_SOCKET))
    try:
        yield
    finally:
        server.close()


class _Edited(LocalDataPlane):
    """A data plane whose files have other words in some places, to make its timeouts short."""

    edits: Mapping[str, str]

    async def apply(self, bundle: Bundle) -> Report:
        files = tuple(BundleFile(item.path, self._edit(item.content), item.secret) for item in bundle.files)
        return await super().apply(replace(bundle, files=files))

    def _edit(self, content: bytes) -> bytes:
        for old, new in self.edits.items():
            content = content.replace(old.encode(), new.encode())
        return content


@asynccontextmanager
async def run_gateway(
    root: Path,
    nginx: Nginx,
    *,
    picker: Sequence[str] | None = None,
    relay: Sequence[str] | None = None,
    workers: int = 2,
    retry: float = 10.0,
    endpoints_delay: float = 5.0,
    edits: Mapping[str, str] | None = None,
    listeners: Callable[[int], Iterable[Json]] = lambda port: [listener(port)],
    kind: Callable[..., Gateway] = Gateway,
) -> AsyncIterator[Gateway]:
    """A gateway with listeners and nothing else.

    `picker` is another command, empty for one that the test plays, and `relay` another one for the relay. `edits` are
    texts of rendered files and what stands there instead. `kind` makes a gateway of another kind.
    """
    (port,) = free_ports(1)
    directory = root / "resources"
    directory.mkdir(parents=True)
    command = picker_command() if picker is None else picker
    data_plane = _Edited(root / "state", nginx, command, options=Options(drain=2.0), relay=relay)
    data_plane.edits = edits or {}
    async with data_plane, _ready(root / "state") if picker == () else contextlib.nullcontext():
        gateway = kind(directory, places.State((root / "state").resolve()), port, data_plane)
        gateway.write("gateway.yaml", gateway_resource(*listeners(port)))
        reconciler = Reconciler(
            data_plane,
            RenderSettings(worker_processes=workers, access_log="access.log"),
            on_state=gateway.hear,
            retry=retry,
            endpoints_delay=endpoints_delay,
        )
        gateway.task = asyncio.create_task(reconciler.run(FileProvider(directory).snapshots()), name="control plane")
        try:
            await gateway.live()
            yield gateway
        finally:
            gateway.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gateway.task


Run = Callable[..., contextlib.AbstractAsyncContextManager[Gateway]]
"""As `run_gateway`."""


def client_of(gateway: Gateway, *, http2: bool = False, timeout: float = SECONDS) -> httpx.AsyncClient:
    """A client that takes nothing from the environment; with `http2` it speaks h2c without asking."""
    return httpx.AsyncClient(
        base_url=gateway.url, timeout=timeout, trust_env=False, http1=not http2, http2=http2, follow_redirects=False
    )
