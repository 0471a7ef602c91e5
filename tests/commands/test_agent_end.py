"""How the agent ends its tasks."""

import asyncio

import pytest

from controller.commands import agent


async def test_task_that_lost_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_AGAIN", 0.01)
    lost = 0

    async def loses_the_first() -> None:
        nonlocal lost
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(loses_the_first())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await agent._end({task})
    assert (lost, task.cancelled()) == (1, True)
