"""Which models and LoRA adapters the endpoints serve, as they list them at `/v1/models`.

Asked now and then and remembered, so that a client's question costs no endpoint anything and gets the list of all of
them. What an endpoint said holds until it says something else: one that is too busy to answer serves them still.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from controller.picker.endpoints import Endpoint
from controller.picker.pages import Page, ScrapeFailed
from controller.picker.pools import PoolTable
from controller.picker.scrape import Pages
from controller.picker.served import LONGEST_NAME, ServedModel

PATH: Final = "/v1/models"
ASK_EVERY: Final = 10.0
"""Seconds between two questions to an endpoint; models change with a deployment, adapters by hand."""
MOST_MODELS: Final = 1000
"""Models taken from one endpoint."""
DOUBTED_EVERY: Final = 1.0
"""The same, while requests name a model that is not listed: it may have been loaded just now."""
_AT_ONCE: Final = 8
"""Endpoints asked at the same time."""


class _List(msgspec.Struct):
    data: list[ServedModel]


_LIST: Final = msgspec.json.Decoder(_List)


class ModelLists:
    """Keeps the models of all endpoints up to date."""

    def __init__(self, *, table: PoolTable, pages: Pages, clock: Callable[[], float]) -> None:
        self._table = table
        self._pages = pages
        self._clock = clock
        self._asked_at: dict[Endpoint, float] = {}

    @property
    def is_complete(self) -> bool:
        """Whether pools were read and each of their endpoints was asked; one that does not answer counts too."""
        return self._table.etag is not None and all(one in self._asked_at for one in self._table.listing)

    async def ask(self) -> None:
        """Ask the endpoints whose turn it is. Waits for their answers."""
        now = self._clock()
        endpoints = self._table.listing
        self._asked_at = {endpoint: self._asked_at[endpoint] for endpoint in endpoints if endpoint in self._asked_at}
        due = [one for one in endpoints if one not in self._asked_at or now - self._asked_at[one] >= _patience(one)]
        for start in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._ask(endpoint) for endpoint in due[start : start + _AT_ONCE]))

    async def _ask(self, endpoint: Endpoint) -> None:
        self._asked_at[endpoint] = self._clock()
        endpoint.list_is_doubted = False
        try:
            page = await self._pages.get(endpoint.address)
        except ScrapeFailed:
            return
        finally:
            # It would be closed before the next turn.
            self._pages.forget(endpoint.address)
        if page.status < 500:
            endpoint.models = models_on(page)


def _patience(endpoint: Endpoint) -> float:
    return DOUBTED_EVERY if endpoint.list_is_doubted else ASK_EVERY


def models_on(page: Page) -> tuple[ServedModel, ...]:
    """The models that a page lists, sorted by name; none where it is of another shape, or says no."""
    if page.status != 200:
        return ()
    try:
        listed = _LIST.decode(page.body).data
    except ValueError:
        return ()
    named = [model for model in listed if 0 < len(model.id) <= LONGEST_NAME]
    return tuple(sorted(named, key=lambda model: model.id)[:MOST_MODELS])
