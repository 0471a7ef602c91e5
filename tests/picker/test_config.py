import argparse
from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.picker.command import add_arguments, run
from controller.picker.config import PickerSettings

PATHS = {"socket": Path("p.sock"), "pools": Path("pools.json"), "completions": Path("completions.log")}


def test_scrape_interval_above_the_staleness_limit_is_refused() -> None:
    with pytest.raises(ValidationError, match="scrape interval 5 s: above the staleness limit 3 s"):
        PickerSettings(**PATHS, scrape_interval=5, staleness=3)


def test_command_names_the_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["--socket", "p", "--pools", "x", "--completions", "c", "--scrape-interval", "5"]
    assert run(parser.parse_args(arguments)) == 2
    assert "above the staleness limit" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["9090", "host:", ":9090", "a b:1", "::1:9090"])
def test_metrics_address_needs_host_and_port(address: str) -> None:
    with pytest.raises(ValidationError):
        PickerSettings(**PATHS, metrics_address=address)


@pytest.mark.parametrize("address", ["127.0.0.1:9090", "[::1]:9090", "localhost:1"])
def test_metrics_address(address: str) -> None:
    assert PickerSettings(**PATHS, metrics_address=address).metrics_address == address
