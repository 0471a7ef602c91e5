"""The health service of gRPC, as far as probes and gateways ask: Check.

Its messages have one field each, so they are written here rather than brought by a package. A client that asks to be
told of changes learns that this is not implemented, and takes the server for healthy.

Source: grpc/health/v1/health.proto; names of services as the field's pickers have them.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc

from controller.extproc.messages import SERVICE

NAME: Final = "grpc.health.v1.Health"
LIVENESS: Final = "liveness"
SERVICES: Final = ("", LIVENESS, "readiness", SERVICE, "inference-extension")

_SERVING: Final = b"\x08\x01"
_NOT_SERVING: Final = b"\x08\x02"


class _Call(Protocol):
    async def abort(self, code: grpc.StatusCode, details: str) -> None: ...


class Health:
    """Answers what is asked for health. `is_ready` says whether requests are to come."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    async def check(self, request: bytes, call: _Call) -> bytes:
        """Liveness is served for as long as there is an answer."""
        service = _service_in(request)
        if service not in SERVICES:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _SERVING if service == LIVENESS or self._is_ready() else _NOT_SERVING

    def handler(self) -> Any:  # Any: grpc has no types
        """What a server is given."""
        methods = {"Check": grpc.unary_unary_rpc_method_handler(self.check)}
        return grpc.method_handlers_generic_handler(NAME, methods)


def _service_in(request: bytes) -> str | None:
    """Field 1 of a HealthCheckRequest; None when it is none. Names that are known are shorter than 128 bytes."""
    if not request:
        return ""
    if request[0] != 0x0A or len(request) < 2 or request[1] != len(request) - 2:
        return None
    return request[2:].decode("utf-8", "replace")
