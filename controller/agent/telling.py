"""Tells the control plane what this instance serves: at once when that changes, and again every few seconds."""

import asyncio
import logging
import random
from typing import Protocol

from controller.agent.standing import Standing
from controller.agent.tries import tries
from controller.errors import ControlPlaneFailed
from controller.wire import REPORT_EVERY, Statement

log = logging.getLogger(__name__)


class Ear(Protocol):
    """Who is told."""

    async def tell(self, statement: Statement) -> None: ...


async def keep_telling(ear: Ear, standing: Standing, *, rng: random.Random) -> None:
    """Ends when it was told that the instance leaves."""
    backoff = tries(rng)
    while True:
        standing.news.clear()
        statement = standing.statement
        try:
            await ear.tell(statement)
        except ControlPlaneFailed as problem:
            # Who follows the control plane logs it.
            log.debug("report not taken", extra={"problem": str(problem)})
            await asyncio.sleep(backoff.delay())
            continue
        backoff.reset()
        if statement.is_leaving:
            return
        try:
            async with asyncio.timeout(REPORT_EVERY * rng.uniform(0.8, 1.0)):
                await standing.news.wait()
        except TimeoutError:
            continue
