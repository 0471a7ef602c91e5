"""A directory with every broken file that we know, and a good one: the good one is served."""

import shutil
from pathlib import Path

import pytest

from controller.__main__ import main

BROKEN = Path(__file__).parent.parent / "broken"
GOOD = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: good, namespace: survivor}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 8080, protocol: HTTP, hostname: good.example}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: survivor}
spec:
  parentRefs: [{name: good}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: example.com}}]}]
"""


@pytest.mark.nginx
def test_good_route_is_served_beside_every_broken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "all"
    shutil.copytree(BROKEN, directory)
    (directory / "good.yaml").write_text(GOOD)
    assert main(["check", str(directory)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ERROR") for line in lines) > 30
    assert [line.split()[:3] for line in lines if "survivor/good" in line] == [
        ["ok", "Gateway", "survivor/good"],
        ["ok", "HTTPRoute", "survivor/good"],
    ]
    assert main(["render", str(directory), "-o", str(tmp_path / "out")]) == 0
    assert "good.example" in (tmp_path / "out" / "survivor_good" / "port_8080.conf").read_text()
