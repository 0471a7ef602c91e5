from collections.abc import MutableMapping
from typing import Any

import pytest

from controller.picker.health import Failure
from controller.picker.requests import HungUp, NotFromGateway, Try, failure_of_status, read_pick, read_tried

HEADERS = {b"x-infergate-pool": b"llm/gpu", b"x-infergate-then": b"@r3", b"x-infergate-request": b"abc"}
SCOPE = {"method": "POST", "path": "/v1/completions"}


class Client:
    """Sends messages one by one."""

    def __init__(self, *messages: dict[str, Any]) -> None:  # Any: an ASGI message
        self._messages = iter(messages)

    async def __call__(self) -> MutableMapping[str, Any]:  # Any: an ASGI message
        return next(self._messages)


async def test_body_is_read_to_its_end_and_counted() -> None:
    client = Client(
        {"type": "http.request", "body": b"x" * 1000, "more_body": True}, {"type": "http.request", "body": b"y"}
    )
    request = await read_pick(dict(SCOPE), HEADERS, client)
    assert (request.size, request.pool, request.then, request.id) == (1001, "llm/gpu", b"@r3", "abc")


async def test_client_that_hangs_up_in_its_body_is_not_picked_for() -> None:
    client = Client({"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"})
    with pytest.raises(HungUp):
        await read_pick(dict(SCOPE), HEADERS, client)


@pytest.mark.parametrize("missing", [b"x-infergate-then", b"x-infergate-request"])
async def test_pick_without_the_gateways_headers_is_refused(missing: bytes) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != missing}
    with pytest.raises(NotFromGateway):
        await read_pick(dict(SCOPE), headers, Client({"type": "http.request"}))


@pytest.mark.parametrize(
    ("text", "tries"),
    [
        ("", ()),
        ("1.2.3.4:80=unreachable;", (Try("1.2.3.4:80", Failure.UNREACHABLE),)),
        ("1.2.3.4:80=closed;", (Try("1.2.3.4:80", Failure.CLOSED),)),
        ("[fd00::1]:80=timeout;", (Try("[fd00::1]:80", Failure.TIMEOUT),)),
        ("1.2.3.4:80=failed;", (Try("1.2.3.4:80", Failure.UNAVAILABLE),)),
        ("a:1=unreachable;b:2=timeout;", (Try("a:1", Failure.UNREACHABLE), Try("b:2", Failure.TIMEOUT))),
        ("nonsense;=x;", ()),
    ],
)
def test_tried_endpoints_tell_how_they_failed(text: str, tries: tuple[Try, ...]) -> None:
    assert read_tried(text) == tries


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (200, None),
        (404, None),
        (429, None),
        (500, Failure.ERROR),
        (501, None),
        (502, Failure.UNAVAILABLE),
        (503, Failure.UNAVAILABLE),
        (505, None),
        (507, Failure.ERROR),
    ],
)
def test_which_statuses_count_as_failures(status: int, failure: Failure | None) -> None:
    assert failure_of_status(status) is failure
