"""Leader election on a real API server, with processes that are killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.kube import Api

CANDIDATE = """
import asyncio, os, signal, sys
from pathlib import Path
from controller.kube import Api, configuration
from controller.provider.kubernetes.lease import Leadership

async def main() -> None:
    async with Api(await configuration(Path(os.environ["KUBECONFIG"]))) as api:
        namespace, identity = sys.argv[1:]
        leadership = Leadership(api, namespace=namespace, name="infergate", identity=identity,
                                on_change=lambda leads: print("leads" if leads else "ceased", flush=True))
        task = asyncio.ensure_future(leadership.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""


@asynccontextmanager
async def candidate(namespace: str, identity: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CANDIDATE, namespace, identity, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process, *, within: float) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), within)).decode().strip()


@pytest.mark.parametrize(("stop", "within"), [(signal.SIGTERM, 5.0), (signal.SIGKILL, 20.0)])
async def test_another_takes_over(api: Api, namespace: str, stop: signal.Signals, within: float) -> None:
    async with candidate(namespace, "a") as first:
        assert await line(first, within=10) == "leads"
        async with candidate(namespace, "b") as second:
            path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/infergate"
            assert (await api.request("GET", path))["spec"]["holderIdentity"] == "a"
            first.send_signal(stop)
            assert await line(second, within=within) == "leads"
            assert (await api.request("GET", path))["spec"]["holderIdentity"] == "b"
