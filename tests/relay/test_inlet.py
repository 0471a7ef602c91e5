"""What waits to be read of a connection: its socket is told when it is much, and when there is room."""

import asyncio
from typing import cast

import pytest

from controller.relay.inlet import Inlet

LARGE = bytes(200_000)


class Transport:
    """Says what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause_reading(self) -> None:
        self.asked.append("pause")

    def resume_reading(self) -> None:
        self.asked.append("resume")


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def inlet(transport: Transport) -> Inlet:
    inlet = Inlet()
    inlet.transport = cast(asyncio.Transport, transport)
    return inlet


def test_socket_pauses_once_until_all_is_taken(inlet: Inlet, transport: Transport) -> None:
    for _ in range(4):
        inlet.add(LARGE)
    assert transport.asked == ["pause"]

    assert inlet.take() == LARGE * 4
    assert transport.asked == ["pause", "resume"]
    assert inlet.take() == b""
    assert transport.asked == ["pause", "resume"]


def test_what_nobody_reads_is_not_counted_for_what_comes_next(inlet: Inlet, transport: Transport) -> None:
    inlet.add(LARGE)
    inlet.clear()
    inlet.add(LARGE)
    assert transport.asked == []
    assert inlet.take() == LARGE
