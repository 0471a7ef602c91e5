"""The gRPC server that gateways ask: its addresses, its health, and how it ends."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.extproc.messages import SERVICE
from controller.picker.config import ExtProcSettings
from controller.picker.ext_proc.certificates import credentials_of
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.health import Health
from controller.picker.ext_proc.streams import Streams
from controller.picker.ext_proc.verdicts import Verdicts
from controller.picker.parts import Parts

log = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_STREAMS: Final = 100_000
"""Each takes about 10 KB; gateways send no more requests than their clients have."""
_OPTIONS: Final = (
    # A gateway that buffers bodies sends each in one message.
    ("grpc.max_receive_message_length", 64 * _MIB),
    ("grpc.max_send_message_length", -1),
    # Bytes that a stream may send before they are read: prompts of 220 KB come without a pause.
    ("grpc.http2.lookahead_bytes", _MIB),
    ("grpc.http2.max_frame_size", _MIB),
    # A gateway that is gone without a word is noticed, and what it had in flight with it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Gateways look after their connections in the same way, some every few seconds.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Streams that begin at once and were not looked at: of a thousand and more, gRPC's default, some are reset.
    ("grpc.server.max_pending_requests", _STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", _STREAMS),
    ("grpc.so_reuseport", 0),
)


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
        self._credentials = credentials_of(settings.certificates) if settings.tls else None
        parts.registry.register(_StreamMetrics(self.desk))

    async def run(self, stopping: asyncio.Event) -> None:
        """See `Service`."""
        health = Health(self.is_ready)
        servers = [self._server(health)]
        if self._settings.health_address is not None:
            probed = grpc.aio.server()
            probed.add_generic_rpc_handlers((health.handler(),))
            _bind(self._settings.health_address, probed.add_insecure_port)
            servers.append(probed)
        for server in servers:
            await server.start()
        log.info("ext_proc served", extra={"address": self._settings.address, "tls": self._settings.tls})
        try:
            await stopping.wait()
            await self._drain()
        finally:
            # Requests that wait are refused, so that nothing but answers is waited for.
            self._parts.state.flow.stop()
            await asyncio.gather(*(server.stop(self._grace if self.desk.open else 0) for server in servers))

    def is_ready(self) -> bool:
        """Whether requests are to come."""
        return not self._is_draining and self._parts.state.table.etag is not None

    async def _drain(self) -> None:
        """Serve on while gateways turn elsewhere: they learn from Kubernetes, or by asking for health."""
        self._is_draining = True
        log.info("ext_proc drains", extra={"seconds": self._settings.drain, "streams": self.desk.open})
        await asyncio.sleep(self._settings.drain)

    def _server(self, health: Health) -> Any:  # Any: grpc has no types
        streams = Streams(self.desk)
        methods = {"Process": grpc.stream_stream_rpc_method_handler(streams.process)}
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods), health.handler()))
        credentials = self._credentials
        if credentials is None:
            _bind(self._settings.address, server.add_insecure_port)
        else:
            _bind(self._settings.address, lambda address: server.add_secure_port(address, credentials))
        return server


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


def _bind(address: str, add: Callable[[str], int]) -> None:
    """Bind a port. Raises OSError when that is not possible."""
    try:
        bound = add(f"[::]{address}" if address.startswith(":") else address)
    except RuntimeError as problem:
        raise OSError(f"{address}: {problem}") from problem
    if bound == 0:
        raise OSError(f"{address}: cannot be listened on")
