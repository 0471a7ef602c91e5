"""A data plane in a process of its own: serves one bundle, says so, and waits for its end."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from controller.agent.apply import Options
from controller.agent.nginx import find
from controller.bundle import Bundle, BundleFile
from controller.dataplane.local import LocalDataPlane
from controller.pools import pools_of


async def main(state: str, version: str, conf: bytes, *picker: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    bundle = Bundle("shop/edge", version, (BundleFile("nginx.conf", conf),), pools_of(()))
    nginx = find(environment=os.environ)
    async with LocalDataPlane(Path(state), nginx, picker, options=Options(drain=1.0)) as dataplane:
        report = await dataplane.apply(bundle)
        sys.stdout.write(f"{report.serving}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    state, version, conf, *picker = sys.argv[1:]
    asyncio.run(main(state, version, Path(conf).read_bytes(), *picker))
