"""The gRPC server that gateways ask: its addresses, its health, and how it ends."""

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.extproc.http2.served import CallOf
from controller.extproc.http2.server import Connection
from controller.extproc.messages import METHOD
from controller.picker.config import ExtProcSettings
from controller.picker.ext_proc.calls import exchanges
from controller.picker.ext_proc.certificates import ServerTls
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.health import Health
from controller.picker.ext_proc.verdicts import Verdicts
from controller.picker.parts import Parts

log = logging.getLogger(__name__)

_BACKLOG: Final = 4096
_LOOK_EVERY: Final = 1.0
"""Seconds between looks at connections, at the files of a certificate, and at what those are to hear who watch."""
_QUIET: Final = 30.0
"""Seconds of silence after which a gateway is asked whether it is there."""
_PATIENCE: Final = 10.0
"""Seconds in which it is to answer: one that is gone without a word has its requests still in flight."""
_HANDSHAKE: Final = 10.0
_SHUTDOWN: Final = 1.0


class ExtProcServer:
    """Serves gateways. See `Service`."""

    def __init__(self, parts: Parts, settings: ExtProcSettings, *, grace: float) -> None:
        """`grace` is how many seconds streams may go on that are open when no others are taken any more.

        Raises SettingInvalid when there is no usable certificate.
        """
        self._parts = parts
        self._settings = settings
        self._grace = grace
        self._is_draining = False
        self.desk = Desk(
            choosing=parts.choosing(Verdicts()),
            state=parts.state,
            pool=settings.pool,
            body_memory=settings.body_memory,
            recorder=parts.recorder,
        )
        self._tls = ServerTls(settings.certificates) if settings.tls else None
        self._connections: set[Connection] = set()
        self._health = Health(self.is_ready)
        parts.registry.register(_StreamMetrics(self.desk))

    async def run(self, stopping: asyncio.Event) -> None:
        """See `Service`."""
        health = self._health.methods()
        asked = {METHOD.encode(): exchanges(self.desk), **health}
        servers = [await self._listen(self._settings.address, asked, tls=self._tls)]
        if self._settings.health_address is not None:
            servers.append(await self._listen(self._settings.health_address, health, tls=None))
        log.info("ext_proc served", extra={"address": self._settings.address, "tls": self._settings.tls})
        looking = asyncio.create_task(self._look())
        try:
            await stopping.wait()
            await self._drain()
        finally:
            # Requests that wait are refused, so that nothing but answers is waited for.
            self._parts.state.flow.stop()
            for server in servers:
                server.close()
            await self._leave()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def is_ready(self) -> bool:
        """Whether requests are to come."""
        return not self._is_draining and self._parts.state.table.etag is not None

    async def _drain(self) -> None:
        """Serve on while gateways turn elsewhere: they learn from Kubernetes, or by asking for health."""
        self._is_draining = True
        self._health.tell()
        log.info("ext_proc drains", extra={"seconds": self._settings.drain, "streams": self.desk.open})
        await asyncio.sleep(self._settings.drain)

    async def _leave(self) -> None:
        """Let streams end that are open, for some time."""
        self._health.end()
        for connection in tuple(self._connections):
            connection.go_away()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace
        while self._connections:
            if loop.time() >= deadline:
                log.warning("streams are cut off", extra={"streams": self.desk.open})
                break
            await asyncio.sleep(0.05)
        for connection in tuple(self._connections):
            connection.abort()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self._health.tell()
            for connection in tuple(self._connections):
                connection.look(quiet=_QUIET, patience=_PATIENCE)
            if self._tls is not None:
                self._tls.refresh()

    async def _listen(self, address: str, methods: Mapping[bytes, CallOf], *, tls: ServerTls | None) -> asyncio.Server:
        """Raises OSError."""
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(methods, self._connections),
            sock=_bound(address),
            backlog=_BACKLOG,
            ssl=tls.context if tls is not None else None,
            ssl_handshake_timeout=_HANDSHAKE if tls is not None else None,
            ssl_shutdown_timeout=_SHUTDOWN if tls is not None else None,
        )


class _StreamMetrics(Collector):
    """Metrics of the streams."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        desk = self._desk
        yield GaugeMetricFamily("infergate_ext_proc_streams", "Streams that are open.", value=desk.open)
        yield GaugeMetricFamily("infergate_ext_proc_body_bytes", "Bytes of request bodies in hand.", value=desk.held)
        ended = CounterMetricFamily("infergate_ext_proc_streams_ended", "Streams by how they ended.", labels=("end",))
        for end in End:
            ended.add_metric((end.value,), desk.ended[end])
        yield ended


def _bound(address: str) -> socket.socket:
    """A socket on `host:port`, or `:port` of all addresses. Raises OSError, which names the address."""
    host, _, port = address.rpartition(":")
    has_both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if has_both or host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, dualstack_ipv6=has_both)
    except (OSError, OverflowError) as problem:
        raise OSError(f"{address}: {problem}") from problem
