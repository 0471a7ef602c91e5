"""Requests through the Gateway, each on a connection of its own: as few as tell what is live."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

import aiohttp

from tools.bench.cluster.objects import HOST, path_of
from tools.bench.failures import CannotMeasure
from tools.bench.resources import REVISION_HEADER

_AT_ONCE: Final = 4
_PAUSE: Final = 0.05
"""Seconds until a route that does not answer is asked again."""
_SHORT_PAUSE: Final = 0.01
"""The same for the one route that was changed."""
_IN_A_ROW: Final = 6
"""Requests that all show a change: with two instances, a late one is missed in one of 64."""
_PATIENCE: Final = 60.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)


async def all_answer(address: str, numbers: Iterable[int]) -> float:
    """Waits until every route has answered 200 once. Returns the time (monotonic) of the last first answer.

    A route is asked until it answers, and the others of its turn after it: what is not live yet costs few requests.
    Raises CannotMeasure when it takes too long.
    """
    waiting = iter(list(numbers))
    async with _session() as session:

        async def walk() -> None:
            for number in waiting:
                while await _revision(session, address, number) is None:  # noqa: ASYNC110  # only answers tell
                    await asyncio.sleep(_PAUSE)

        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(walk() for _ in range(_AT_ONCE)))
        except TimeoutError:
            raise CannotMeasure(f"not all routes answer after {_PATIENCE:g} s") from None
    return time.monotonic()


async def shows(address: str, number: int, *, revision: int) -> float:
    """Waits until requests to a route show a revision. Returns the time (monotonic) of the first of a row that all do.

    Raises CannotMeasure when it takes too long.
    """
    first, row = 0.0, 0
    async with _session() as session:
        try:
            async with asyncio.timeout(_PATIENCE):
                while row < _IN_A_ROW:
                    if await _revision(session, address, number) == str(revision):
                        first, row = first if row else time.monotonic(), row + 1
                    else:
                        row = 0
                        await asyncio.sleep(_SHORT_PAUSE)
        except TimeoutError:
            raise CannotMeasure(f"a change is not seen after {_PATIENCE:g} s") from None
    return first


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=_TIMEOUT)


async def _revision(session: aiohttp.ClientSession, address: str, number: int) -> str | None:
    """What a route shows; None while it does not answer 200."""
    try:
        async with session.get(f"http://{address}{path_of(number)}", headers={"Host": HOST}) as response:
            return response.headers.get(REVISION_HEADER, "") if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None
