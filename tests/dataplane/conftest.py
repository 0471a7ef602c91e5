import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controller.bundle import Bundle, BundleFile
from controller.pools import Pool, pools_of
from tests.ports import free_port

_NGINX_CONF = """\
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
    server {{
        listen unix:run/control.sock;
        location = /infergate/version {{ return 200 "{version}"; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://unix:run/picker.sock:/pools; }}
    }}
    {more}
}}
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def bundle(port: int) -> Callable[..., Bundle]:
    """Makes a bundle of pools by name, whose nginx asks the picker at `port` for the pools that it sees."""

    def make(version: str, *pools: str, more: str = "") -> Bundle:
        conf = _NGINX_CONF.format(version=version, port=port, more=more)
        files = (BundleFile("nginx.conf", conf.encode()),)
        return Bundle("shop/edge", version, files, pools_of(tuple(map(Pool, pools))))

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def processes() -> Callable[[Path], list[int]]:
    """Lists the processes that work in a state directory."""

    def of(state: Path) -> list[int]:
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdecimal() and (process / "cwd").readlink() == state.resolve():
                    found.append(int(process.name))
            except OSError:  # it ended, or is another user's
                continue
        return found

    return of
