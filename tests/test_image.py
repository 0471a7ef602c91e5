"""The image, built and started where there is a container engine."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from controller.dataplane import pods

ROOT = Path(__file__).parent.parent
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    if not Path("/var/run/docker.sock").exists() and "DOCKER_HOST" not in os.environ:
        pytest.skip("needs a container engine: there is no /var/run/docker.sock and no DOCKER_HOST")
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as problem:
        pytest.skip(f"needs a container engine: {problem}")
    yield client
    client.close()


def _instructions(name: str) -> list[str]:
    """Arguments of an instruction in the last stage, which is the image."""
    stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    return [line.removeprefix(name).strip() for line in stage.splitlines() if line.startswith(f"{name} ")]


def test_account_and_state_are_those_of_data_planes() -> None:
    assert _instructions("USER") == [f"{pods.USER}:{pods.USER}"]
    assert _instructions("WORKDIR") == [pods.STATE]
    assert _instructions("ENTRYPOINT") == ['["infergate"]']


def test_image_ends_by_the_signal_that_its_processes_know() -> None:
    assert _instructions("STOPSIGNAL") == ["SIGTERM"]


def test_image_is_made_of_what_the_build_gets() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]

    assert copied
    assert all((ROOT / name).exists() and name not in ignored for name in copied)


def test_image_serves_a_directory(engine: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    image, _ = engine.images.build(path=str(ROOT), rm=True)
    mounts = {str(tmp_path): {"bind": "/etc/infergate", "mode": "ro"}}
    container = engine.containers.run(str(image.id), detach=True, volumes=mounts)
    try:
        for line in container.logs(stream=True, follow=True):
            if b'"listening"' in line:
                break
        assert container.exec_run(["id", "-u"]).output == b"10001\n"
        assert container.exec_run(["sh", "-c", "command -v cc gcc pip"]).output == b""
        assert image.attrs["Config"]["Labels"]["org.opencontainers.image.title"] == "Infergate"
        assert image.attrs["Config"]["StopSignal"] == "SIGTERM"
        answer = container.exec_run(["curl", "--silent", "http://127.0.0.1:8080/nothing"])
        assert isinstance(answer.output, bytes)
        assert b"route_not_found" in answer.output
    finally:
        container.remove(force=True)
