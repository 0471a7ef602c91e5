"""The image, built and started where there is a container engine."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from controller import compiled
from controller.dataplane import pods
from tools.compile import what_is_lacking

ROOT = Path(__file__).parent.parent
VARIABLE = "INFERGATE_COMPILE"
"""Makes a wheel with compiled modules."""
IMPORTS_ALL = """\
import importlib, os
from controller import compiled
compiled.install(os.environ)
for name in compiled.MODULES:
    importlib.import_module(name)
print(compiled.count())
"""
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


def test_what_is_copied_makes_a_program_that_writes_nothing_beside_its_state(tmp_path: Path) -> None:
    """The build's own steps but for the libraries, and a run on what they made."""
    given = tmp_path / "given"
    installed = _installed(tmp_path, **{VARIABLE: "0"})
    given.mkdir()
    (given / "gateway.yaml").write_text(GATEWAY)
    before = _files(installed)
    environment = {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}

    _python("-m", "controller", "render", str(given), "-o", str(tmp_path / "out"), "--no-test", **environment)

    assert list((tmp_path / "out").rglob("port_8080.conf"))
    assert list((tmp_path / "out").rglob("njs/errors.js"))
    assert _files(installed) == before
    assert not (installed / "controller/_compiled").exists()
    assert "Root-Is-Purelib: true" in _wheel(installed)


def test_image_has_the_hot_paths_compiled(tmp_path: Path) -> None:
    """Every binary is there before, as compiling all takes minutes."""
    if lacking := what_is_lacking():
        pytest.skip(f"needs what compiles: {lacking}")
    if missing := [name for name in compiled.MODULES if not compiled.binary_of(name).exists()]:
        pytest.skip(f"needs the binaries of `make compiled`: there is none of {missing[0]}")
    assert f"ENV {VARIABLE}=1" in _build_stage()

    installed = _installed(tmp_path, **{VARIABLE: "1"})
    printed = _python("-c", IMPORTS_ALL, PYTHONPATH=str(installed))

    assert printed.split() == [f"{len(compiled.MODULES)}/{len(compiled.MODULES)}"]
    assert "Root-Is-Purelib: false" in _wheel(installed)
    assert f"-linux_{platform.machine()}" in _wheel(installed)


def test_image_has_no_compiler_and_its_build_has_one() -> None:
    final = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert "gcc" in "".join(_build_stage())
    assert "gcc" not in final
    assert "python3-dev" not in final


def _installed(directory: Path, **environment: str) -> Path:
    """What the steps of the build make of what they are given."""
    if find_spec("hatchling") is None or find_spec("pip") is None:
        pytest.skip("needs pip and hatchling, which make the package")
    source, installed = directory / "source", directory / "installed"
    for line in _build_stage():
        if line.startswith("COPY "):
            for name in line.split()[1:-1]:
                _copy(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet")
    _python("-m", "pip", "install", *options, "--target", str(installed), str(source), **environment)
    return installed


def _wheel(installed: Path) -> str:
    """What the package says of the platforms it is for."""
    (found,) = installed.glob("infergate-*.dist-info/WHEEL")
    return found.read_text()


def _build_stage() -> list[str]:
    return (ROOT / "Dockerfile").read_text().split("\nFROM ")[1].splitlines()


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _python(*arguments: str, **environment: str) -> str:
    """Elsewhere than in this directory, whose packages would be found first."""
    done = subprocess.run(
        (sys.executable, *arguments),
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": "", **environment},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


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
