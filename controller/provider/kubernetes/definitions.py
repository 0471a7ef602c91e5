"""Which fields an API server's definitions lack, of those that one channel of Gateway API has and another has not.

Discovery tells of kinds, and not of their fields. The description of an API in OpenAPI does, any client may read it,
and one that was read is asked for again at the cost of an answer without content.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from controller.errors import ApiError
from controller.kube import Api, Json

log = logging.getLogger(__name__)

_PATH: Final = "/openapi/v3/apis/gateway.networking.k8s.io/v1"
_INTERVAL: Final = 30.0
"""Seconds between two looks. Definitions are replaced when a cluster is upgraded."""

Field = tuple[str, ...]
"""A kind, and the names on the way to a field, without those of lists."""


class Definitions:
    """Keeps what is missing of some fields. While nothing is known, nothing is.

    on_change: is told when something else is missing than before.
    """

    def __init__(
        self, api: Api, fields: Sequence[Field], *, on_change: Callable[[], None], interval: float = _INTERVAL
    ) -> None:
        self._api = api
        self._fields = fields
        self._on_change = on_change
        self._interval = interval
        self._etag = ""
        self.missing: frozenset[Field] = frozenset()

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            try:
                await self._look()
            except ApiError as problem:
                log.debug("definitions cannot be read", extra={"problem": str(problem)})
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        found = await self._api.fetch(_PATH, accept="application/json", etag=self._etag)
        if found is None:
            return
        document, self._etag = found
        schemas = _schemas(document)
        missing = frozenset(field for field in self._fields if field[0] in schemas and not _has(schemas, field))
        if missing != self.missing:
            self.missing = missing
            log.info("fields are not defined", extra={"fields": ", ".join(sorted(".".join(item) for item in missing))})
            self._on_change()


def _schemas(document: Json) -> dict[str, Json]:
    """By kind."""
    schemas = (document.get("components") or {}).get("schemas") or {}
    return {
        about["kind"]: schema
        for schema in schemas.values()
        for about in schema.get("x-kubernetes-group-version-kind") or ()
    }


def _has(schemas: dict[str, Json], field: Field) -> bool:
    kind, *names = field
    schema = schemas[kind]
    for name in names:
        properties = schema.get("properties") or {}
        if name not in properties:
            return False
        schema = properties[name].get("items") or properties[name]
    return True
