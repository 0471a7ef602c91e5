"""Streams of ext_proc that a picker provably did nothing with are opened again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived

from controller.agent.nginx import Nginx
from controller.extproc.encoding import encode_answer
from controller.extproc.grpc import prefix
from controller.extproc.messages import Answer, BodyAnswer, HeadersAnswer, Phase
from controller.extproc.wire import CHUNK
from tests.nginx.ext_proc import picks
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.scene import run_scene

REFUSED = 7


class _Picker(asyncio.Protocol):
    """Refuses the first streams, and picks an endpoint for each after them."""

    def __init__(self, left: list[str], endpoint: str) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._left = left
        self._endpoint = endpoint
        self._ext_proc: set[int] = set()
        self._answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, RequestReceived) and b"ExternalProcessor" in dict(event.headers)[b":path"]:
                how = self._left.pop() if self._left else ""
                if how == "goes away":
                    # h2 takes a connection for closed then; the frame is written by hand.
                    last = max(0, event.stream_id - 2)
                    self._transport.write(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + b"\0\0\0\0")
                elif how == "refuses":
                    self._h2.reset_stream(event.stream_id, REFUSED)
                else:
                    self._ext_proc.add(event.stream_id)
            elif isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self._ext_proc and event.stream_id not in self._answered:
                    self._answered.add(event.stream_id)
                    self._answer(event.stream_id)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream_id: int) -> None:
        self._h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        answers: tuple[Answer, ...] = (
            picks(self._endpoint),
            BodyAnswer(Phase.REQUEST),
            BodyAnswer(Phase.REQUEST),
            HeadersAnswer(Phase.RESPONSE),
        )
        for message in map(encode_answer, answers):
            self._h2.send_data(stream_id, prefix(len(message)) + message)
        self._h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)


@asynccontextmanager
async def _picker(left: list[str], endpoint: str) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: _Picker(left, endpoint), "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("left", [["refuses"], ["goes away"], ["refuses", "goes away"], ["refuses"] * 3], ids=str)
async def test_stream_that_was_not_touched_is_opened_again(tmp_path: Path, nginx: Nginx, left: list[str]) -> None:
    body, status = b"x" * (CHUNK + 1), 503 if len(left) > 2 else 200
    async with run_scene(tmp_path, nginx) as scene, _picker(left, scene.a.address) as address:
        pool = picked_pool("refused", scene.a.address, pickers=[address], mode="FailClose", tls=False)
        await scene.gateway.apply("refused.yaml", pool, route("r", rule(to_pool("refused")), hostnames=["r.test"]))
        got = await scene.http.post("/v1/x", content=body, headers={"host": "r.test"})

        assert (got.status_code, left) == (status, [])
        assert [request.body for request in scene.a.requests] == ([body] if status == 200 else [])
