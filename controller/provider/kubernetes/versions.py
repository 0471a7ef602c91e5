"""Of which version of Gateway API the definitions are that a cluster has.

The specification has each definition name it in an annotation. Only metadata is asked for: what they define is large.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.errors import ApiDenied, ApiError, ApiMissing
from controller.kube import Api
from controller.resources.gateway_api import GROUP

log = logging.getLogger(__name__)

ANNOTATION: Final = "gateway.networking.k8s.io/bundle-version"
"""Source: Gateway API, pkg/consts."""
PATH: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITIONS: Final = (
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
)
_ACCEPT: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_INTERVAL: Final = 30.0
"""Seconds between two looks. Definitions are replaced when a cluster is upgraded."""


class Versions:
    """Keeps what the definitions say that they are.

    on_change: is told when they say something else than before.
    """

    def __init__(
        self,
        api: Api,
        *,
        on_change: Callable[[], None],
        names: Sequence[str] = DEFINITIONS,
        interval: float = _INTERVAL,
    ) -> None:
        self._api = api
        self._on_change = on_change
        self._names = names
        self._interval = interval
        self._is_denied = False
        self.found: Mapping[str, str] | None = None
        """Version by the plural of a kind, of those that are installed, sorted; empty where none is named. None while
        nothing is known."""

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            try:
                await self._look()
            except ApiDenied as problem:
                if not self._is_denied:
                    log.warning("versions of definitions may not be read", extra={"problem": str(problem)})
                self._is_denied = True
            except ApiError as problem:
                log.debug("versions of definitions cannot be read", extra={"problem": str(problem)})
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        found = {name: version for name in self._names if (version := await self._version(name)) is not None}
        self._is_denied = False
        if found != self.found:
            self.found = found
            self._on_change()

    async def _version(self, name: str) -> str | None:
        """None where there is no such definition."""
        try:
            answer = await self._api.fetch(f"{PATH}/{name}.{GROUP}", accept=_ACCEPT, etag="")
        except ApiMissing:
            return None
        assert answer is not None  # without an ETag there is always content
        annotations = (answer[0].get("metadata") or {}).get("annotations") or {}
        return str(annotations.get(ANNOTATION, ""))
