"""A data plane whose picker is started by somebody else, as the other container of a pod is."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.agent.apply import Applied, Options
from controller.agent.nginx import Nginx
from controller.bundle import Bundle
from controller.dataplane.local import LocalDataPlane
from controller.errors import PickerNotRunning

pytestmark = pytest.mark.nginx

Make = Callable[..., Bundle]

_FAKE = str(Path(__file__).with_name("fake_picker.py"))


@asynccontextmanager
async def _picker(state: Path) -> AsyncIterator[None]:
    """One that is there once there are pools to read."""
    (state / "run").mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", _FAKE, cwd=state)
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        (state / "run/picker.sock").unlink(missing_ok=True)


def _data_plane(state: Path, nginx: Nginx, *, timeout: float = 10.0) -> LocalDataPlane:
    return LocalDataPlane(state, nginx, (), options=Options(drain=2.0), picker_timeout=timeout)


async def _get(port: int) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{port}/")


async def test_bundle_waits_for_the_picker(tmp_path: Path, nginx: Nginx, bundle: Make, port: int) -> None:
    async with _data_plane(tmp_path, nginx) as data_plane:
        applying = asyncio.create_task(data_plane.apply(bundle("a", "llm/gpu")))
        async with _picker(tmp_path):
            assert (await applying).serving
            assert (await _get(port)).text == "llm/gpu"


async def test_picker_that_never_comes_is_reported(tmp_path: Path, nginx: Nginx, bundle: Make) -> None:
    async with _data_plane(tmp_path, nginx, timeout=0.2) as data_plane:
        with pytest.raises(PickerNotRunning, match="did not become ready"):
            await data_plane.apply(bundle("a"))


async def test_last_release_is_served_again_with_its_pools(
    tmp_path: Path, nginx: Nginx, bundle: Make, port: int
) -> None:
    async with _picker(tmp_path):
        async with _data_plane(tmp_path, nginx) as data_plane:
            assert await data_plane.resume() is None
            await data_plane.apply(bundle("a", "llm/gpu"))
        async with _data_plane(tmp_path, nginx) as data_plane:
            assert isinstance(await data_plane.resume(), Applied)
            assert (await data_plane.version(), (await _get(port)).text) == ("a", "llm/gpu")
            await data_plane.apply(bundle("b", "llm/cpu"))
            assert (await _get(port)).text == "llm/cpu llm/gpu"


async def test_last_release_is_served_again_without_a_picker(
    tmp_path: Path, nginx: Nginx, bundle: Make, port: int
) -> None:
    async with _picker(tmp_path), _data_plane(tmp_path, nginx) as data_plane:
        await data_plane.apply(bundle("a"))
    async with _data_plane(tmp_path, nginx, timeout=0.2) as data_plane:
        await data_plane.resume()
        assert (await _get(port)).status_code == 502
