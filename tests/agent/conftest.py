import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.agent.apply import Applier, Options
from controller.agent.nginx import Nginx
from controller.agent.state import State, locked
from controller.bundle import Bundle, BundleFile
from controller.pools import pools_of
from tests.ports import free_port

_NGINX_CONF = """\
error_log stderr notice;
worker_processes 2;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
    server {{
        listen unix:run/control.sock;
        location = /infergate/version {{ return 200 "{version}"; }}
    }}
    include routes/*.conf;
}}
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with locked(tmp_path / "state") as state:
        yield state


@pytest.fixture
def bundle() -> Callable[..., Bundle]:
    def make(version: str, routes: str = "", *more: BundleFile) -> Bundle:
        files = (
            BundleFile("nginx.conf", _NGINX_CONF.format(version=version).encode()),
            BundleFile("routes/0.conf", routes.encode()),
            *more,
        )
        return Bundle("shop/edge", version, files, pools_of(()))

    return make


@pytest.fixture
async def applier(state: State, nginx: Nginx) -> AsyncIterator[Applier]:
    async with Applier(state, nginx, options=Options(drain=2.0)) as applier:
        yield applier


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    def check(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        except (FileNotFoundError, ProcessLookupError):
            return False

    return check


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    def of(pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return of
