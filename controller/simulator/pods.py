"""Simulated pods on their ports, all in the event loop of the caller.

uvicorn's protocol is used without its server, which starts and stops in tenths of a second, owns the process's signals
and cannot drop its connections at once.
"""

import asyncio
import importlib.util
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from controller.errors import InfergateError
from controller.simulator.application import Application
from controller.simulator.exchange import Connection
from controller.simulator.faults import Fault
from controller.simulator.pod import Pod
from controller.simulator.settings import PodSettings

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
"""All tasks end at once when their connection is gone; longer is a bug."""
_STOP_TURNS = 10
"""Turns of the loop; a dropped connection reports its end in the next one or two."""
_BACKLOG = 1024


class PortUnavailable(InfergateError):
    """A pod cannot listen on the port it was given."""


async def serve(pods: Sequence[PodSettings], *, host: str = "127.0.0.1") -> "Simulation":
    """Start pods; all of them accept connections on return. Names are unique.

    Raises PortUnavailable; then none runs.
    """
    simulation = Simulation(pods, host=host)
    try:
        await simulation.start()
    except OSError as error:
        await simulation.stop()
        raise PortUnavailable(str(error)) from error
    return simulation


class Simulation:
    """Pods that run. Leaving its context stops them."""

    def __init__(self, pods: Sequence[PodSettings], *, host: str) -> None:
        names = [settings.name for settings in pods]
        if len(set(names)) < len(names):
            raise ValueError(f"names of pods are not unique: {', '.join(names)}")
        self._servers = {settings.name: _Server(settings, host=host, siblings=self) for settings in pods}

    @property
    def addresses(self) -> dict[str, str]:
        """ "ip:port" of each pod by name, in the order in which they were given; those that died too."""
        return {name: server.address for name, server in self._servers.items()}

    def pod(self, name: str) -> Pod:
        return self._servers[name].pod

    async def set_fault(self, name: str, fault: Fault, *, spared: Connection | None = None) -> None:
        """What `POST /simulator/pods/NAME/fault` does; `spared` is the connection that asks.

        Raises KeyError for an unknown name, and OSError when a dead pod cannot listen again.
        """
        server = self._servers[name]
        server.pod.set_fault(fault)
        if server.pod.is_alive:
            await server.listen()
        else:
            server.close(spared=spared)

    def described(self) -> list[dict[str, object]]:
        return [
            {
                "name": name,
                "address": server.address,
                "alive": server.pod.is_alive,
                "fault": server.pod.fault.model_dump(mode="json"),
            }
            for name, server in self._servers.items()
        ]

    async def start(self) -> None:
        """Raises OSError when a port cannot be had."""
        for server in self._servers.values():
            server.reserve_port()
        for server in self._servers.values():
            await server.listen()

    async def stop(self) -> None:
        """Close every connection and end every request at once."""
        await asyncio.gather(*(server.stop() for server in self._servers.values()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, which also tells an application that it is lost, and can be reset."""

    on_lost: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def reset(self) -> None:
        # Lingering for no time makes the kernel send RST instead of FIN.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Server:
    """The port of one pod."""

    def __init__(self, settings: PodSettings, *, host: str, siblings: Simulation) -> None:
        self.pod = Pod(settings)
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._port = settings.port
        self._config = Config(
            Application(self.pod, siblings=siblings),
            interface="asgi3",
            http="httptools",
            ws="websockets-sansio" if importlib.util.find_spec("websockets") else "none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive,
        )
        self._config.load()
        self._state = ServerState()
        self._state.default_headers = [(b"x-simulated-pod", settings.name.encode())]
        self._reservation: socket.socket | None = None
        self._listener: asyncio.Server | None = None

    @property
    def address(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def reserve_port(self) -> None:
        """Bind the port without listening, so that nobody is given it while the pod is dead. Raises OSError."""
        self._reservation = self._bound()
        self._port = self._reservation.getsockname()[1]

    async def listen(self) -> None:
        """Accept connections; nothing if it does. Raises OSError."""
        if self._listener is not None:
            return
        bound = self._bound()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, sock=bound, backlog=_BACKLOG
            )
        except OSError:
            bound.close()
            raise

    def close(self, *, spared: Connection | None = None) -> None:
        """Refuse new connections and drop those there are."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        kept: object = spared
        for connection in tuple(self._state.connections):
            if connection is not kept:
                connection.transport.abort()

    async def stop(self) -> None:
        self.close()
        self.pod.stop()
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None
        if self._state.tasks:
            await asyncio.wait(tuple(self._state.tasks), timeout=_STOP_SECONDS)
        for _ in range(_STOP_TURNS):
            if self._state.connections:
                await asyncio.sleep(0)

    def _connection(self) -> asyncio.Protocol:
        return _Connection(config=self._config, server_state=self._state, app_state={})

    def _bound(self) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, self._port))
        except OSError as error:
            bound.close()
            raise OSError(f"{self.address}: {error.strerror}") from error
        return bound
