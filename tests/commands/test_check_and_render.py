"""`infergate check` and `infergate render` as a user calls them."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

from controller.__main__ import main
from controller.commands import check
from controller.commands.run import render_settings
from controller.settings import Settings

GOOD = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: home}
spec:
  parentRefs: [{name: edge}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: example.com}}]}]
"""
WITHOUT_BACKEND = GOOD.replace("rules: [{filters", "rules: [{backendRefs: [{name: missing, port: 80}]}, {filters")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "resources"
    directory.mkdir()
    (directory / "all.yaml").write_text(GOOD)
    return directory


def test_check_of_a_good_directory_ends_with_0(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(directory), "--no-test"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok", "ok"]


def test_check_names_what_is_wrong_first_and_ends_with_1(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "all.yaml").write_text(WITHOUT_BACKEND)
    assert main(["check", str(directory), "--no-test"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("ERROR  HTTPRoute default/home parent edge")
    assert "ResolvedRefs=False/BackendNotFound" in first
    assert "missing" in first


def test_check_shows_a_document_that_cannot_be_read(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "bad.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: 1}\n")
    assert main(["check", str(directory), "--no-test"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert "Service default/x" in first
    assert "bad.yaml:4" in first
    assert "spec.ports" in first


def test_an_interrupted_command_ends_with_130_and_says_nothing(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run", interrupted)
    assert main(["check", str(directory)]) == 130
    assert capsys.readouterr() == ("", "")


def test_check_of_a_missing_directory_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "missing")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_check_prints_objects_with_their_status(
    directory: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert main(["check", str(directory), "--no-test", "-o", output]) == 0
    text = capsys.readouterr().out
    found = yaml.safe_load(text) if output == "yaml" else json.loads(text)
    assert found["kind"] == "List"
    status = {item["kind"]: item["status"] for item in found["items"]}
    assert status["HTTPRoute"]["parents"][0]["controllerName"] == "infergate.dev/gateway-controller"
    conditions = {item["type"]: item["status"] for item in status["Gateway"]["conditions"]}
    assert conditions == {"Accepted": "True", "Programmed": "True", "ResolvedRefs": "True"}


@pytest.mark.nginx
def test_check_asks_nginx(directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refusing = tmp_path / "nginx"
    refusing.write_text(
        "#!/bin/sh\ncase $* in\n"
        "*-V*) echo 'nginx version: nginx/1.31.3' >&2; echo 'configure arguments: --add-module=njs-0.9.9/nginx' >&2;;\n"
        "*) echo 'nginx: [emerg] it is Sunday' >&2; exit 1;;\nesac\n"
    )
    refusing.chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("INFERGATE_NGINX", str(refusing))
        assert main(["check", str(directory / "all.yaml")]) == 1
    assert "it is Sunday" in capsys.readouterr().out


@pytest.mark.nginx
def test_render_writes_the_files_of_each_gateway(directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    second = GOOD.replace("name: edge", "name: second").replace("name: home", "name: other")
    (directory / "second.yaml").write_text(second)
    assert main(["render", str(directory), "-o", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"default_edge", "default_second"}
    assert "HTTPRoute default/home" in (out / "default_edge" / "port_8080.conf").read_text()
    assert json.loads((out / "default_edge" / "pools.json").read_text())["pools"] == []


def test_command_without_its_argument_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run"])
    assert "DIR" in capsys.readouterr().err


def test_log_format_that_does_not_exist_is_refused(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERGATE_LOG_FORMAT", "xml")
    with pytest.raises(SystemExit):
        main(["check", str(directory), "--no-test"])
    assert "INFERGATE_LOG_FORMAT=xml: accepted are text, json, bare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gatewayClassName: infergate", "gatewayClassName: infergat", "GatewayClass infergat does not exist"),
        ("parentRefs: [{name: edge}]", "parentRefs: [{name: egde}]", "Gateway default/egde does not exist"),
        ("parentRefs: [{name: edge}]", "parentRefs: []", "spec.parentRefs: there is none"),
    ],
)
def test_check_names_what_nobody_serves(
    directory: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    (directory / "all.yaml").write_text(GOOD.replace(old, new))
    assert main(["check", str(directory), "--no-test"]) == 1
    assert said in capsys.readouterr().out


def test_status_file_among_the_resources_is_refused(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(directory), "--write-status", str(directory / "status.yaml")]) == 2
    assert "whose files are read as resources" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "state", "deep/state", "../resources/state"])
def test_state_among_the_resources_is_refused(directory: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    assert main(["run", str(directory), "--state", str(directory / place)]) == 2
    assert "whose files are read as resources" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "out"])
def test_output_among_the_resources_is_refused(directory: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    assert main(["render", str(directory), "-o", str(directory / place), "--no-test"]) == 2
    assert "whose files are read as resources" in capsys.readouterr().err
    assert [path.name for path in directory.iterdir()] == ["all.yaml"]


def test_output_in_a_hidden_directory_is_not_read(directory: Path) -> None:
    assert main(["render", str(directory), "-o", str(directory / ".out"), "--no-test"]) == 0
    assert main(["check", str(directory), "--no-test"]) == 0


@pytest.mark.parametrize("place", ["missing/status.yaml", "."])
def test_status_file_that_cannot_be_one_is_refused(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert main(["run", str(directory), "--write-status", str(tmp_path / place)]) == 2
    assert "not a file in a directory that exists" in capsys.readouterr().err


def test_address_that_is_named_twice_is_listened_on_once() -> None:
    listen = ("127.0.0.1", "::1", "127.0.0.1", "[::1]", "0:0::1")
    assert render_settings(Settings(), listen=listen).listen_addresses == ("127.0.0.1", "[::1]")


@pytest.mark.nginx
def test_tab_in_a_header_value_is_written(directory: Path, tmp_path: Path) -> None:
    header = '{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-tab, value: "a\\tb"}]}}'
    (directory / "all.yaml").write_text(GOOD.replace("filters: [", f"filters: [{header}, "))
    assert main(["render", str(directory), "-o", str(tmp_path / "out")]) == 0
    assert 'add_header x-tab "a\\tb" always;' in (tmp_path / "out" / "default_edge" / "port_8080.conf").read_text()
