"""What external pickers need is not loaded where no pool has one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["controller.commands.run", "controller.commands.agent", "controller.commands.controller"]
)
def test_libraries_of_external_pickers_are_not_loaded(module: str) -> None:
    text = f"import sys, {module}; print(*[name for name in ('grpc', 'envoy', 'hpack') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_relay_does_without_grpcio() -> None:
    text = "import sys, controller.relay.command; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
