"""Brings bundles to the instances of data planes in a cluster: they ask over HTTPS, with a token, and wait for news.

Nobody is waited for here. An instance that hangs, reads slowly or never asks again costs its own connection.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from controller.bundle import Bundle
from controller.dataplane.instances import InstanceReport, Instances
from controller.dataplane.listening import Listener
from controller.dataplane.pki import Pair
from controller.dataplane.publications import Publications
from controller.dataplane.tokens import Denied, Identity
from controller.errors import InfergateError
from controller.pools import Pools
from controller.wire import BUNDLES_PATH, LONGEST_WAIT, REPORTS_PATH, Statement, decode_statement

log = logging.getLogger(__name__)

_LARGEST_REPORT: Final = 64 * 1024
"""Bytes; nginx's longest message is 2 KB."""
_REPORT_TIMEOUT: Final = 10.0
"""Seconds that a report may take to come."""
_REVIEW_TIMEOUT: Final = 15.0
"""Seconds that the API server may take to say whose a token is."""
_FORGET_EVERY: Final = 5.0
_MOST_WAITING: Final = 4096
"""Requests under way at once; more are answered 503."""

Review = Callable[[str], Awaitable[Identity | Denied]]


class BundleServer:
    """Serves between the begin and the end of its context."""

    def __init__(
        self,
        review: Review,
        allowed: Callable[[str, Identity], bool],
        *,
        address: tuple[str, int] = ("", 0),
        on_report: Callable[[str], None] = lambda gateway: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`review` says whose a token is, and `allowed` whether a Gateway, `namespace/name`, is that identity's.

        `address` is host and port; an empty host is every address, port 0 a free one. `on_report` is told the name of a
        Gateway whose `reports` are others than before.
        """
        self._review = review
        self._allowed = allowed
        self._address = address
        self._publications = Publications()
        self._instances = Instances(clock, on_report)
        self._listener = Listener(self._app(), most_waiting=_MOST_WAITING)
        self._is_stopping = False
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Call `use` first. Raises AddressUnusable when the address cannot be listened on."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._listener.listening(self._address))
            stack.callback(self._let_go)
            forgetting = asyncio.create_task(self._forget())
            stack.callback(forgetting.cancel)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._running.aclose()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def use(self, serving: Pair) -> None:
        """Serve with a certificate from the next connection on."""
        self._listener.use(serving)

    def publish(self, gateway: str, bundle: Bundle) -> None:
        """Have the instances of a Gateway, `namespace/name`, serve a bundle. Does not wait for them."""
        self._publications.publish(gateway, bundle)

    def publish_pools(self, gateway: str, pools: Pools) -> None:
        """Have other pools served with the newest bundle, without a reload."""
        self._publications.publish_pools(gateway, pools)

    def withdraw(self, gateway: str) -> None:
        """Forget a Gateway and its instances. They serve what they have until they are gone."""
        self._publications.withdraw(gateway)
        self._instances.withdraw(gateway)

    def reports(self, gateway: str) -> tuple[InstanceReport, ...]:
        """What the instances of a Gateway said last, sorted by pod. One that was silent for long is not among them."""
        return self._instances.reports(gateway)

    def count(self, gateway: str) -> int:
        """How many instances of a Gateway were heard of late, those among them that said nothing yet."""
        return self._instances.count(gateway)

    def _app(self) -> Starlette:
        place = "/{namespace}/{name}"
        return Starlette(
            routes=[
                Route(BUNDLES_PATH + place, self._deliver, methods=["GET"]),
                Route(REPORTS_PATH + place, self._take_report, methods=["POST"]),
            ]
        )

    async def _deliver(self, request: Request) -> Response:
        gateway, identity = await self._authorized(request)
        asked = request.query_params
        wait = _seconds(asked.get("wait", "0"))
        self._instances.heard(gateway, identity)
        body = await self._publications.newer(
            gateway,
            version=asked.get("version", ""),
            etag=asked.get("etag", ""),
            wait=0.0 if self._is_stopping else wait,
        )
        if body is None:
            return Response(status_code=204)
        headers = {"content-encoding": "gzip", "cache-control": "no-store"}
        return Response(body, media_type="application/vnd.msgpack", headers=headers)

    async def _take_report(self, request: Request) -> Response:
        gateway, identity = await self._authorized(request)
        statement = await _statement(request)
        self._instances.said(gateway, identity, statement)
        return Response(status_code=204)

    async def _authorized(self, request: Request) -> tuple[str, Identity]:
        """The Gateway that is asked for, and who asks. Raises HTTPException when it is not theirs."""
        gateway = f"{request.path_params['namespace']}/{request.path_params['name']}"
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _denied("there is no bearer token")
        try:
            async with asyncio.timeout(_REVIEW_TIMEOUT):
                identity = await self._review(token.strip())
        except (InfergateError, TimeoutError) as problem:
            log.error("token cannot be reviewed", extra={"gateway": gateway, "problem": str(problem) or "timeout"})
            raise HTTPException(503, "the token cannot be reviewed") from problem
        if isinstance(identity, Denied):
            log.warning("instance refused", extra={"gateway": gateway, "reason": identity.reason})
            raise _denied(identity.reason)
        if not self._allowed(gateway, identity):
            account = f"{identity.namespace}/{identity.service_account}"
            log.warning("instance refused", extra={"gateway": gateway, "account": account, "pod": identity.pod})
            raise HTTPException(403, f"Gateway {gateway} is not that of ServiceAccount {account}")
        return gateway, identity

    def _let_go(self) -> None:
        """Answer all who wait, so that they ask another replica."""
        self._is_stopping = True
        self._publications.wake()

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_EVERY)
            self._instances.forget_silent()


def _denied(reason: str) -> HTTPException:
    return HTTPException(401, reason, headers={"www-authenticate": "Bearer"})


def _seconds(text: str) -> float:
    with suppress(ValueError):
        wait = float(text)
        if wait >= 0:
            return min(wait, LONGEST_WAIT)
    raise HTTPException(400, "wait: not a number of seconds")


async def _statement(request: Request) -> Statement:
    """Raises HTTPException when what comes is too large, too slow, or no statement."""
    body = b""
    try:
        async with asyncio.timeout(_REPORT_TIMEOUT):
            async for piece in request.stream():
                body += piece
                if len(body) > _LARGEST_REPORT:
                    raise HTTPException(413, f"a report has at most {_LARGEST_REPORT} bytes")
        return decode_statement(body)
    except TimeoutError as error:
        raise HTTPException(408, "the report took too long to come") from error
    except (ClientDisconnect, ValueError) as error:
        raise HTTPException(400, "the body is no report") from error
