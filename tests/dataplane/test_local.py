import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.agent.apply import Options
from controller.agent.nginx import Nginx
from controller.bundle import Bundle
from controller.dataplane.base import DataPlane
from controller.dataplane.local import LocalDataPlane, default_state
from controller.errors import NginxRefused, PickerNotRunning, StateUnusable
from controller.pools import Pool, decode_pools, pools_of

Make = Callable[..., Bundle]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
Processes = Callable[[Path], list[int]]

_PICKER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("fake_picker.py")))
_OPTIONS = Options(drain=2.0)


@pytest.fixture
async def dataplane(tmp_path: Path, nginx: Nginx) -> AsyncIterator[LocalDataPlane]:
    async with LocalDataPlane(tmp_path / "state", nginx, _PICKER, options=_OPTIONS, retirement=0.3) as dataplane:
        yield dataplane


@asynccontextmanager
async def _gateway(state: Path, bundle: Bundle) -> AsyncIterator[asyncio.subprocess.Process]:
    conf = state.with_suffix(".conf")
    conf.write_bytes(bundle.files[0].content)
    script = str(Path(__file__).with_name("fake_gateway.py"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script, str(state), bundle.version, str(conf), *_PICKER), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(15):
            assert await process.stdout.readline() == b"True\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _get(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://127.0.0.1:{port}/")).text


@pytest.mark.nginx
async def test_bundle_is_served_with_its_pools(dataplane: DataPlane, bundle: Make, port: int) -> None:
    report = await dataplane.apply(bundle("a", "llm/gpu"))
    assert (report.gateway, report.version, report.serving, report.refusal) == ("shop/edge", "a", True, None)
    assert await _get(port) == "llm/gpu"


@pytest.mark.nginx
async def test_pools_change_without_a_reload(
    dataplane: LocalDataPlane, bundle: Make, port: int, tmp_path: Path
) -> None:
    await dataplane.apply(bundle("a", "llm/gpu"))
    await dataplane.apply_pools(pools_of((Pool("llm/cpu"),)))
    assert await _get(port) == "llm/cpu"
    assert (tmp_path / "state/current").readlink().name == "000001"


@pytest.mark.nginx
async def test_refusal_is_reported_and_keeps_the_pools_of_what_is_live(
    dataplane: LocalDataPlane, bundle: Make, port: int
) -> None:
    await dataplane.apply(bundle("a", "llm/gpu"))
    report = await dataplane.apply(bundle("b", "llm/cpu", more="nonsense;"))
    assert not report.serving
    assert isinstance(report.refusal, NginxRefused)
    assert (report.refusal.file, report.refusal.message) == ("nginx.conf", 'unknown directive "nonsense"')
    assert await _get(port) == "llm/cpu llm/gpu"


@pytest.mark.nginx
async def test_removed_pool_is_known_until_old_workers_ask_no_more(
    dataplane: LocalDataPlane, bundle: Make, port: int
) -> None:
    await dataplane.apply(bundle("a", "llm/gpu"))
    await dataplane.apply(bundle("b", "llm/cpu"))
    assert await _get(port) == "llm/cpu llm/gpu"
    async with asyncio.timeout(5):
        while await _get(port) != "llm/cpu":  # noqa: ASYNC110 - nobody tells when the time has passed
            await asyncio.sleep(0.05)


@pytest.mark.nginx
async def test_calls_take_effect_in_their_order(dataplane: LocalDataPlane, bundle: Make, tmp_path: Path) -> None:
    reports = await asyncio.gather(*(dataplane.apply(bundle(version)) for version in "abc"))
    assert [report.version for report in reports if report.serving] == ["a", "b", "c"]
    assert (tmp_path / "state/current").readlink().name == "000003"


@pytest.mark.nginx
async def test_killed_picker_comes_back(dataplane: LocalDataPlane, bundle: Make, port: int, until: Until) -> None:
    await dataplane.apply(bundle("a", "llm/gpu"))
    first = dataplane.picker_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: dataplane.picker_pid not in (None, first))
    async with asyncio.timeout(5):
        while await _get(port) != "llm/gpu":  # noqa: ASYNC110 - nginx cannot tell when the picker is back
            await asyncio.sleep(0.05)


@pytest.mark.nginx
async def test_picker_that_hangs_is_replaced(dataplane: LocalDataPlane, bundle: Make, until: Until) -> None:
    await dataplane.apply(bundle("a"))
    first = dataplane.picker_pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    await until(lambda: dataplane.picker_pid not in (None, first))


@pytest.mark.nginx
@pytest.mark.parametrize(
    ("fault", "message"), [("broken", "no module named scores"), ("unready", "did not become ready")]
)
async def test_picker_that_does_not_become_ready_is_reported(
    fault: str, message: str, tmp_path: Path, nginx: Nginx, bundle: Make, processes: Processes
) -> None:
    picker = ("/usr/bin/env", f"FAKE_PICKER={fault}", *_PICKER)
    async with LocalDataPlane(tmp_path / "state", nginx, picker, picker_timeout=3.0) as dataplane:
        with pytest.raises(PickerNotRunning, match=message):
            await dataplane.apply(bundle("a"))
        assert processes(tmp_path / "state") == []


@pytest.mark.nginx
async def test_second_instance_is_refused(dataplane: LocalDataPlane, nginx: Nginx, tmp_path: Path) -> None:
    with pytest.raises(StateUnusable, match=f"pid {os.getpid()}"):
        async with LocalDataPlane(tmp_path / "state", nginx, _PICKER):
            pass


@pytest.mark.nginx
async def test_interrupt_leaves_no_process(tmp_path: Path, bundle: Make, processes: Processes) -> None:
    async with _gateway(tmp_path / "state", bundle("a")) as gateway:
        assert len(processes(tmp_path / "state")) == 3
        gateway.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await gateway.wait() == 0
        assert processes(tmp_path / "state") == []


@pytest.mark.nginx
async def test_killed_parent_leaves_no_process(
    tmp_path: Path, bundle: Make, until: Until, processes: Processes
) -> None:
    async with _gateway(tmp_path / "state", bundle("a")) as gateway:
        gateway.kill()
        async with asyncio.timeout(2):
            await until(lambda: processes(tmp_path / "state") == [])


@pytest.mark.nginx
async def test_workers_of_an_earlier_life_make_room(
    tmp_path: Path, nginx: Nginx, bundle: Make, port: int, until: Until, processes: Processes
) -> None:
    state = tmp_path / "state"
    async with _gateway(state, bundle("a")) as gateway:
        # Stopped, so that it cannot take its workers along when its parent ends.
        master = int((state / "run/nginx.pid").read_text())
        os.kill(master, signal.SIGSTOP)
        gateway.kill()
        await gateway.wait()
    assert master in processes(state)
    async with LocalDataPlane(state, nginx, _PICKER, options=_OPTIONS) as dataplane:
        assert (await dataplane.apply(bundle("b", "llm/gpu"))).serving
        assert await _get(port) == "llm/gpu"
    assert processes(state) == []


async def test_pools_are_readable_by_the_picker(tmp_path: Path, nginx: Nginx) -> None:
    async with LocalDataPlane(tmp_path / "state", nginx, ()) as dataplane:
        pools = pools_of((Pool("llm/gpu"),))
        await dataplane.apply_pools(pools)
    assert decode_pools((tmp_path / "state/pools.json").read_bytes()) == pools


def test_default_state_belongs_to_its_directory(tmp_path: Path) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path)}
    one, other = (default_state(tmp_path / name, environment=home) for name in ("one", "other"))
    assert one == default_state(tmp_path / "x" / ".." / "one", environment=home)
    assert one != other
    assert one.parent == tmp_path / "infergate"


def test_user_without_a_home_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(StateUnusable, match="the user has no home; set HOME or XDG_STATE_HOME"):
        default_state(tmp_path, environment={})
