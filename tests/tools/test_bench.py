"""Each benchmark in its quick mode. What it finds depends on the machine, so only its shape is looked at."""

import json
import os
from pathlib import Path

import pytest

from controller.agent.nginx import find
from controller.errors import NginxMissing
from tools.bench.__main__ import BENCHMARKS, main

FIELDS = {
    "request_path": {"rounds", "seconds_per_cell", "cells", "ratios"},
    "pick": {
        "rounds",
        "seconds_per_cell",
        "connections",
        "endpoints",
        "idle_endpoints",
        "idle_cores",
        "alone",
        "cells",
    },
    "peers": {"rounds", "seconds_per_cell", "endpoints", "cells"},
    "change_to_live": {"rows"},
    "memory": {"routes", "idle_seconds", "processes"},
    "pipeline": {"rows"},
    "rules": {"rows"},
    "external": {"rounds", "cells"},
    "ext_proc": {"rounds", "seconds_per_cell", "cells"},
}
ROWS: dict[str, tuple[str, int, set[str]]] = {
    "request_path": (
        "cells",
        24,
        {"body_bytes", "connections", "way", "median_us", "p99_us", "requests_per_second", "cpu_us"},
    ),
    "pick": (
        "cells",
        13,
        {"body_bytes", "way", "requests", "median_us", "requests_per_second", "cpu_us", "picked_within_us", "compared"},
    ),
    # Of the peers there may be none.
    "peers": (
        "cells",
        18,
        {"body_bytes", "connections", "way", "median_us", "requests_per_second", "cpu_us", "to_plain", "to_peers"},
    ),
    "change_to_live": ("rows", 2, {"routes", "changes", "live_ms", "live_p95_ms", "logged_ms", "steps_ms"}),
    "memory": ("processes", 4, {"role", "resident_mb", "proportional_mb"}),
    "pipeline": ("rows", 2, {"routes", "resources", "rendered_bytes", "stages_ms"}),
    "rules": (
        "rows",
        3,
        {"layout", "rules", "listeners", "rendered_bytes", "render_seconds", "test_seconds", "worker_mb", "costs"},
    ),
    "ext_proc": (
        "cells",
        6,
        {"body_bytes", "connections", "median_us", "requests_per_second", "envoy_us", "picker_us"},
    ),
    "external": ("cells", 6, {"body_bytes", "way", "requests", "median_us", "requests_per_second", "cpu_us"}),
}


@pytest.fixture(autouse=True)
def _nginx() -> None:
    try:
        find(environment=os.environ)
    except NginxMissing as error:
        pytest.skip(str(error))


@pytest.mark.nginx
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_writes_its_figures(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--quick", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"{name}.json").read_bytes())
    assert found.keys() == {"benchmark", "time", "quick", "machine", "bars"} | FIELDS[name]
    rows, count, fields = ROWS[name]
    assert len(found[rows]) >= count
    assert all(fields <= row.keys() and not row.get("failed") for row in found[rows])
    shown = capsys.readouterr().out
    assert all(bar["what"] in shown for bar in found["bars"])


def test_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["memory", "speed"])
    assert "there is no benchmark speed; there are request_path, pick, change_to_live" in capsys.readouterr().err
