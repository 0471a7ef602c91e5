"""The two other nginx processes of a benchmark: the backend, and the plain proxy that the gateway is compared with."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.render.environment import files_directory
from tools.bench.failures import CannotMeasure

_STARTS_WITHIN: Final = 10.0
_ENDS_WITHIN: Final = 5.0

_FRAME = """\
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events {{
    worker_connections 4096;
}}
http {{
    client_body_temp_path tmp/body;
    proxy_temp_path tmp/proxy;
    fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi;
    scgi_temp_path tmp/scgi;
    server_tokens off;
    client_max_body_size 128m;
{http}
}}
"""

# The mirror makes nginx read the whole body, which `return` alone would not wait for: an answer before the end of the
# request costs the proxy in front its kept connection. empty_gif refuses POST, and what is sent is its error page.
_BACKEND = """\
    access_log off;
    client_body_buffer_size 256k;
    keepalive_requests 100000;
    server {{
{listen}
        location / {{
            mirror /read;
            empty_gif;
            error_page 405 =200 @answer;
        }}
        location = /read {{
            internal;
            return 204;
        }}
        location @answer {{
            default_type application/json;
            return 200 '{answer}';
        }}
        location = /metrics {{
            default_type text/plain;
            return 200 '{metrics}';
        }}
    }}"""

# What nginx does by default, it does here too: one line of access log per request. What is shared with the gateway is
# copied from its settings, so that only what it does on top makes a difference.
_PLAIN = """\
    access_log access.log;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
{shared}
    upstream backend {{
{servers}
        keepalive 256;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://backend;
        }}
    }}"""

_SHARED = re.compile(
    r"^(?:client_body_buffer_size|keepalive_requests|tcp_nodelay|proxy_buffering|proxy_buffer_size|proxy_buffers) .*;$",
    re.MULTILINE,
)

_ANSWER = (
    '{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"llama-3.1-8b-instruct",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"' + "An answer of some length. " * 29 + '"},'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":256,"completion_tokens":190,"total_tokens":446}}'
)

_METRICS = (
    'vllm:num_requests_running{model_name="llama-3.1-8b-instruct"} 1\n'
    'vllm:num_requests_waiting{model_name="llama-3.1-8b-instruct"} 0\n'
    'vllm:kv_cache_usage_perc{model_name="llama-3.1-8b-instruct"} 0.25\n'
    'vllm:cache_config_info{block_size="16",num_gpu_blocks="8192"} 1\n'
)


@dataclass(frozen=True)
class PlainProxy:
    """A running nginx that only proxies."""

    port: int
    pid: int
    access_log: Path


def free_ports(count: int) -> tuple[int, ...]:
    """Ports on 127.0.0.1 that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(each.getsockname()[1] for each in sockets)


@contextmanager
def backend(nginx: Path, directory: Path, *, ports: Sequence[int]) -> Iterator[None]:
    """An nginx that reads whole requests and answers each with 1 KB of JSON, on every port.

    It answers /metrics like a vLLM server that has little to do. Raises CannotMeasure when it does not start.
    """
    listen = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
    http = _BACKEND.format(listen=listen, answer=_ANSWER, metrics=_METRICS.replace("\n", "\\n"))
    with _running(nginx, directory, http=http, port=ports[0]):
        yield


@contextmanager
def plain_proxy(nginx: Path, directory: Path, *, port: int, backends: Sequence[int]) -> Iterator[PlainProxy]:
    """An nginx with nothing but `proxy_pass` to the backend's ports, with one worker and kept connections.

    Its buffers are those of the gateway. Raises CannotMeasure when it does not start.
    """
    servers = "\n".join(f"        server 127.0.0.1:{backend};" for backend in backends)
    settings = (files_directory() / "nginx/settings.conf").read_text()
    shared = "\n".join(f"    {line}" for line in _SHARED.findall(settings))
    http = _PLAIN.format(shared=shared, servers=servers, port=port)
    with _running(nginx, directory, http=http, port=port) as pid:
        yield PlainProxy(port=port, pid=pid, access_log=directory / "access.log")


@contextmanager
def _running(nginx: Path, directory: Path, *, http: str, port: int) -> Iterator[int]:
    (directory / "tmp").mkdir(parents=True)
    configuration = directory / "nginx.conf"
    configuration.write_text(_FRAME.format(http=http))
    # Workers of another user could not write to the directory.
    options = "daemon off;" + (" user root root;" if os.geteuid() == 0 else "")
    with (directory / "error.log").open("wb") as errors:
        process = subprocess.Popen(
            [nginx, "-p", f"{directory}/", "-c", configuration, "-e", "stderr", "-g", options], stderr=errors
        )
    try:
        _wait_until_listening(process, port, errors=directory / "error.log")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, *, errors: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise CannotMeasure(f"nginx does not listen on port {port}: {errors.read_text()}")
