"""The process of the pods: `python -m tools.bench.picking.pods_process`.

Their settings are the first line of its input, their ports the first of its output; it stops when its input ends.
"""

import asyncio
import gc
import signal
import sys

import msgspec
import uvloop

from controller.simulator.pods import serve
from controller.simulator.settings import PodSettings
from tools.bench.picking.lateness import Lateness
from tools.bench.picking.pods import Listening, Stopped


def main() -> None:
    # Ctrl-C reaches the whole group of processes; who started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = [PodSettings.model_validate(each) for each in msgspec.json.decode(sys.stdin.buffer.readline())]
    # A collection of all objects takes tens of milliseconds, in which no pod would work.
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: list[PodSettings]) -> None:
    lateness = Lateness()
    async with await serve(settings) as simulation:
        _say(Listening(tuple(int(address.rpartition(":")[2]) for address in simulation.addresses.values())))
        lateness.start()
        await asyncio.to_thread(sys.stdin.buffer.read)
        lateness.stop()
    _say(Stopped(lateness.p99()))


def _say(what: Listening | Stopped) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
