"""The page says what the code does."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from controller.picker.flow_control.controller import RECHECK
from controller.picker.flow_control.drain import LONGEST, SHORTEST, UNKNOWN
from controller.picker.flow_control.metrics import flow_control_metrics
from controller.picker.flow_control.refusals import DROPS, Drop
from controller.picker.flow_control.saturation import ASSUMED_SLOTS
from controller.picker.flow_control.settings import (
    LONGEST_WAIT,
    MOST_BANDS,
    BandSettings,
    ConcurrencyParameters,
    FlowControlSettings,
    PoolPolicy,
    UtilizationParameters,
)

PAGE = (Path(__file__).parents[3] / "docs" / "flow-control.md").read_text()
ROWS = dict(
    re.findall(
        r"^\| ((?:pool |band |utilization |concurrency )?`(?!infergate)\w+`) \| `([^`]*)` \|", PAGE, re.MULTILINE
    )
)
ELSEWHERE = {"defaultPriorityBand", "defaultNegativePriorityBand", "priorityBands", "saturationDetector", "flowControl"}


@pytest.mark.parametrize(
    ("prefix", "model"),
    [
        ("", FlowControlSettings()),
        ("pool ", PoolPolicy()),
        ("band ", BandSettings()),
        ("utilization ", UtilizationParameters()),
        ("concurrency ", ConcurrencyParameters()),
    ],
)
def test_defaults_are_those_of_the_code(prefix: str, model: BaseModel) -> None:
    defaults = {
        f"{prefix}`{name}`": value if isinstance(value, str) else json.dumps(value)
        for name, value in model.model_dump(mode="json", by_alias=True).items()
        if name not in ELSEWHERE
    }
    assert defaults.items() <= ROWS.items()


def test_the_page_has_no_setting_that_is_not_there() -> None:
    models = (PoolPolicy, FlowControlSettings, BandSettings, UtilizationParameters, ConcurrencyParameters)
    known = {field.alias for model in models for field in model.model_fields.values()}
    assert {name.split("`")[1] for name in ROWS} <= known
    assert ROWS["`saturationDetector`"] == FlowControlSettings().saturation_detector.plugin_ref


def test_refusals_are_those_of_the_code() -> None:
    told = set(re.findall(r"^\| (\d+) \| `([\w-]+)` \|", PAGE, re.MULTILINE))
    assert told == {(str(facts.status), facts.reason) for drop, facts in DROPS.items() if drop is not Drop.WITHDRAWN}


def test_metrics_are_those_of_the_code() -> None:
    told = {family.name + "_total" * (family.type == "counter") for family in flow_control_metrics({})}
    assert set(re.findall(r"`(infergate_\w+)`", PAGE)) == told


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ("after 80 s at the latest", LONGEST_WAIT == 80),
        ("32 beside the configured ones", MOST_BANDS == 32),
        ("run 256 at once", ASSUMED_SLOTS == 256),
        ("1 to 60 s", (SHORTEST, LONGEST) == (1, 60)),
        ("it is 5", UNKNOWN == 5),
        ("looks again every second", RECHECK == 1),
    ],
)
def test_numbers_are_those_of_the_code(said: str, is_so: bool) -> None:
    assert " ".join(said.split()) in " ".join(PAGE.split())
    assert is_so
