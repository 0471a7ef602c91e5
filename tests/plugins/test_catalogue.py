"""The plugins that there are."""

import msgspec
import pytest

from controller.picker.flow_control.settings import FlowControlSettings
from controller.picker.flow_control.settings import PoolPolicy as FlowControlPolicy
from controller.plugins.catalogue import BUILT_IN, Catalogue, Kind, Plugin, arguments_of, parameters_of
from controller.plugins.types import (
    Admission,
    BandConfig,
    ConfiguredPlugin,
    DetectorConfig,
    FlowControlConfig,
    PriorityBandConfig,
)

REQUIRED = {"utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 5}]}}


def _types(plugin: Plugin) -> str:
    return plugin.type


def test_no_name_means_two_plugins() -> None:
    names = [name for plugin in BUILT_IN.plugins for name in (plugin.type, *plugin.aliases)]

    assert len(names) == len(set(names)) == len(BUILT_IN.by_name)


@pytest.mark.parametrize("plugin", BUILT_IN.plugins, ids=_types)
def test_plugin_has_a_line_about_it(plugin: Plugin) -> None:
    assert plugin.summary.endswith(".")
    assert "\n" not in plugin.summary


@pytest.mark.parametrize("plugin", BUILT_IN.plugins, ids=_types)
def test_plugin_has_defaults_or_says_what_it_needs(plugin: Plugin) -> None:
    configured = ConfiguredPlugin(plugin.type, "x", REQUIRED.get(plugin.type, {}))

    assert isinstance(parameters_of(configured, catalogue=BUILT_IN), plugin.parameters)


def test_arguments_are_parameters_that_mean_something() -> None:
    configured = ConfiguredPlugin("prefix-cache-scorer", "x", {"hashBlockSize": 5, "matchLengthWeight": 0.5})

    found = arguments_of(parameters_of(configured, catalogue=BUILT_IN))

    assert found == {"match_length_weight": 0.5, "match_length_scale_tokens": 8192}


def test_parameters_of_a_detector_are_found_by_its_type() -> None:
    found = parameters_of(DetectorConfig("concurrency-detector", {"maxConcurrency": 3}), catalogue=BUILT_IN)

    assert arguments_of(found)["max_concurrency"] == 3


def test_type_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        parameters_of(ConfiguredPlugin("queue-scorer", "x"), catalogue=Catalogue(()))


def test_types_are_listed_by_kind() -> None:
    assert BUILT_IN.types(Kind.PICKER) == ("max-score-picker", "random-picker", "weighted-random-picker")
    assert set(BUILT_IN.types()) == {plugin.type for plugin in BUILT_IN.plugins}


def test_picker_reads_what_a_policy_says_of_queues() -> None:
    band = BandConfig(max_bytes=7, fairness_policy_ref="round-robin-fairness-policy", usage_ceiling=0.5)
    flow_control = FlowControlConfig(
        max_bytes=0,
        max_requests=100_000,
        default_request_ttl=80.0,
        no_endpoint_request_ttl=0.0,
        default_priority_band=band,
        priority_bands=(PriorityBandConfig(priority=3, ordering_policy_ref="edf-ordering-policy"),),
        saturation_detector=DetectorConfig("utilization-detector", {"metricsStalenessThreshold": "2s"}),
    )
    admission = Admission(flow_control=flow_control, objectives={"a": 3}, default_priority=1, tenant_by="address")

    found = FlowControlPolicy.model_validate(msgspec.to_builtins(admission))

    assert found.flow_control.band(3).max_bytes == 7
    assert found.flow_control.band(3).usage_ceiling == 0.5
    assert found.flow_control.ttl == 80.0
    assert (found.objectives, found.default_priority, found.tenant_by) == ({"a": 3}, 1, "address")


@pytest.mark.parametrize("kind", [Kind.FAIRNESS, Kind.ORDERING])
def test_picker_knows_every_policy_of_queues(kind: Kind) -> None:
    field = f"{kind}PolicyRef"

    for type_ in BUILT_IN.types(kind):
        FlowControlSettings.model_validate({"defaultPriorityBand": {field: type_}})
