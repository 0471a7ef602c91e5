import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import find
from controller.errors import NginxMissing
from controller.picker.ext_proc.restoring import Restorer
from controller.render.environment import files_directory

Body = tuple[bytes, int, str | None]
"""A body, bytes in a piece of it, and the boundary of a form."""
Scan = Callable[[Sequence[Body]], list[tuple[str | None, bool, bytes]]]
"""The model in each body, whether it is broken, and the bytes that name the model."""
Find = Callable[[Sequence[bytes]], list[tuple[str, bytes] | None]]
"""The model in each body and the bytes that name it, where the quick reader is certain of it."""
Answer = tuple[bytes, list[int], bool]
"""An answer, the ends of its pieces, and whether it is a stream."""
Restore = Callable[..., list[tuple[bytes, list[int]]]]
"""Each answer as it is sent on, and how many bytes of it at each piece."""

_CONFIGURATION = """
{load}
daemon off;
worker_processes 1;
error_log stderr error;
pid {root}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/client_body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    scgi_temp_path {root}/scgi;
    uwsgi_temp_path {root}/uwsgi;
    client_max_body_size 0;
    client_body_buffer_size 64m;
    js_path {root}/njs;
    js_import scan from scan.js;
    js_import restored from restored.js;
    server {{
        listen unix:{root}/scan.sock;
        location / {{
            js_content scan.scan;
        }}
        location /members {{
            js_content scan.find;
        }}
        location /restored {{
            js_content restored.run;
        }}
    }}
}}
"""


@pytest.fixture(scope="session")
def njs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An nginx of its own, with what tests call in the scripts."""
    try:
        nginx = find(environment=os.environ)
    except NginxMissing as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("njs")
    shutil.copytree(files_directory() / "nginx" / "njs", root / "njs")
    for script in Path(__file__).parent.glob("*.js"):
        shutil.copy(script, root / "njs")
    load = f"load_module {nginx.njs_module};" if nginx.njs_module else ""
    (root / "nginx.conf").write_text(_CONFIGURATION.format(root=root, load=load))
    process = subprocess.Popen([nginx.binary, "-e", "stderr", "-p", root, "-c", root / "nginx.conf"])
    transport = httpx.HTTPTransport(uds=str(root / "scan.sock"))
    try:
        asyncio.run(_listens(root / "scan.sock"))
        with httpx.Client(transport=transport, base_url="http://scan", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=15)


@pytest.fixture(scope="session")
def scan(njs: httpx.Client) -> Scan:
    """Gives bodies to the readers of models."""

    def scan(bodies: Sequence[Body]) -> list[tuple[str | None, bool, bytes]]:
        sent = [(base64.b64encode(body).decode(), piece, boundary) for body, piece, boundary in bodies]
        answer = njs.post("/", content=json.dumps(sent))
        assert answer.status_code == 200, answer.text
        return [
            (model, is_broken, body[start:end])
            for (model, is_broken, start, end), (body, *_) in zip(answer.json(), bodies, strict=True)
        ]

    return scan


@pytest.fixture(scope="session")
def find_member(njs: httpx.Client) -> Find:
    """Gives bodies to the quick reader."""

    def find(bodies: Sequence[bytes]) -> list[tuple[str, bytes] | None]:
        answer = njs.post("/members", content=json.dumps([base64.b64encode(body).decode() for body in bodies]))
        assert answer.status_code == 200, answer.text
        return [
            None if found is None else (found[0], body[found[1] : found[2]])
            for found, body in zip(answer.json(), bodies, strict=True)
        ]

    return find


@pytest.fixture(scope="session", params=["njs", "picker"])
def restore(request: pytest.FixtureRequest) -> Restore:
    """Gives answers to the restorer beside NGINX, and to that of the picker for other gateways."""
    if request.param == "picker":
        return _restore_in_picker
    njs: httpx.Client = request.getfixturevalue("njs")

    def restore(answers: Sequence[Answer], *, name: str) -> list[tuple[bytes, list[int]]]:
        sent = [
            (base64.b64encode(answer).decode(), ends, is_stream, json.dumps(name))
            for answer, ends, is_stream in answers
        ]
        answer = njs.post("/restored", content=json.dumps(sent))
        assert answer.status_code == 200, answer.text
        return [(base64.b64decode(text), sizes) for text, sizes in answer.json()]

    return restore


def _restore_in_picker(answers: Sequence[Answer], *, name: str) -> list[tuple[bytes, list[int]]]:
    restored = []
    for answer, ends, is_stream in answers:
        restorer = Restorer(json.dumps(name).encode(), is_stream=is_stream)
        starts = [0, *ends]
        pieces = [answer[start:end] for start, end in zip(starts, ends, strict=False)]
        sent = [restorer.take(piece, is_last=number == len(ends) - 1) for number, piece in enumerate(pieces)]
        restored.append((b"".join(sent), [len(piece) for piece in sent]))
    return restored


async def _listens(path: Path) -> None:
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
                return
            await asyncio.sleep(0.01)
