"""Servers of HTTP on uvicorn, which adds nothing of its own: no logs, no headers, no handling of signals."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    """uvicorn's server, stopped by us: its own handling of signals ends the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(
    app: ASGIApp,
    *,
    http: type[asyncio.Protocol] | Literal["httptools"],
    keepalive: int,
    grace: int,
    **more: Any,  # Any: as `uvicorn.Config` has them
) -> Server:
    """A server whose connections are of a protocol.

    `keepalive`: seconds that an idle connection is kept; `grace`: seconds for answers under way when it ends.
    """
    return Server(
        uvicorn.Config(
            app,
            http=http,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=keepalive,
            timeout_graceful_shutdown=grace,
            **more,
        )
    )
