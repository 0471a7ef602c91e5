"""The commands of a data plane's containers."""

import argparse
import importlib
import importlib.util

import pytest

from controller.dataplane import pods
from controller.resources.parameters import NO_PARAMETERS

MODULES = {"agent": "controller.commands.agent", "picker": "controller.picker.command"}
SETTING = pods.Setting(
    name="infergate-web",
    gateway="shop/web",
    image="infergate:1",
    server="https://infergate.infergate-system.svc:8443",
    listener_ports=(80,),
    selector={},
    labels={},
    annotations={},
    replicas=2,
    has_peers=True,
)


@pytest.mark.parametrize(
    "container",
    pods.deployment(SETTING, NO_PARAMETERS)["template"]["spec"]["containers"],
    ids=lambda item: item["name"],
)
def test_arguments_are_those_of_the_command(container: pods.Json) -> None:
    command, *arguments = container["args"]
    if importlib.util.find_spec(MODULES["agent"]) is None:
        pytest.skip("needs the command `infergate agent`")
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(MODULES[command]).add_arguments(parser)

    assert parser.parse_args(arguments)
