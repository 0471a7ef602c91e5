"""An external picker for benchmarks: `python -m tools.bench.picker_process ENDPOINT...` prints its port and serves.

It takes the endpoints in turn and gives bodies back as they come, over our own server of HTTP/2, so that little of what
is measured is its own.
"""

import asyncio
import sys
from itertools import cycle

import uvloop

from controller.extproc.decoding import decode_part
from controller.extproc.encoding import encode_answer
from controller.extproc.grpc import OK
from controller.extproc.http2.served import Stream
from controller.extproc.http2.server import Connection
from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    METHOD,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Phase,
    SetHeader,
)
from controller.extproc.wire import encode_piece


class _Exchange:
    """See `Call`."""

    def __init__(self, stream: Stream, turn: "cycle[str]") -> None:
        self._stream = stream
        self._turn = turn

    def message(self, data: bytes) -> None:
        part, _ = decode_part(data)
        match part:
            case HeadersPart(phase=Phase.REQUEST):
                endpoint = next(self._turn)
                changes = Changes(set=(SetHeader(ENDPOINT_KEY, endpoint.encode()),))
                metadata = {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: endpoint}}
                self._stream.send(encode_answer(HeadersAnswer(Phase.REQUEST, changes), metadata=metadata))
            case HeadersPart():
                self._stream.send(encode_answer(HeadersAnswer(Phase.RESPONSE)))
            case BodyPart():
                self._stream.send(*encode_piece(part.phase, part.chunk, end_of_stream=part.end_of_stream))

    def holds(self, size: int) -> bool:
        return True

    def half_closed(self) -> None:
        self._stream.end(OK)

    def drained(self) -> None:
        pass

    def gone(self) -> None:
        pass


async def _serve(endpoints: list[str]) -> None:
    turn, connections = cycle(endpoints), set[Connection]()
    methods = {METHOD.encode(): lambda stream: _Exchange(stream, turn)}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(methods, connections), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1:]))
