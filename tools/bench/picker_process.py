"""An external picker for benchmarks: `python -m tools.bench.picker_process ENDPOINT...` prints its port and serves.

It takes the endpoints in turn and gives bodies back as they come, so that little of what is measured is its own.
"""

import asyncio
import sys
from itertools import cycle

import grpc
import grpc.aio

from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    SERVICE,
    BodyAnswer,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Phase,
    SetHeader,
    decode_part,
    encode_answer,
)


async def _serve(endpoints: list[str]) -> None:
    turn = cycle(endpoints)
    answered = encode_answer(HeadersAnswer(Phase.RESPONSE))

    async def process(_: object, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            part, _ = decode_part(data)
            match part:
                case HeadersPart(phase=Phase.REQUEST):
                    endpoint = next(turn)
                    changes = Changes(set=(SetHeader(ENDPOINT_KEY, endpoint.encode()),))
                    metadata = {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: endpoint}}
                    await context.write(encode_answer(HeadersAnswer(Phase.REQUEST, changes), metadata=metadata))
                case HeadersPart():
                    await context.write(answered)
                case BodyPart():
                    answer = BodyAnswer(part.phase, part.chunk, is_streamed=True, end_of_stream=part.end_of_stream)
                    await context.write(encode_answer(answer))

    handler = grpc.stream_stream_rpc_method_handler(process)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Process": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
