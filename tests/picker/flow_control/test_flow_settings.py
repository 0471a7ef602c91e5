"""Settings as an EndpointPickerConfig writes them."""

import pytest
from pydantic import ValidationError

from controller.picker.flow_control.settings import (
    LONGEST_WAIT,
    ConcurrencyDetectorRef,
    ConcurrencyMode,
    Fairness,
    FlowControlSettings,
    Ordering,
)


def test_configuration_of_the_reference_can_be_pasted() -> None:
    settings = FlowControlSettings.model_validate(
        {
            "maxBytes": "4Gi",
            "maxRequests": 100,
            "defaultRequestTTL": "30s",
            "noEndpointRequestTTL": "1m10s",
            "defaultPriorityBand": {"maxBytes": "1G", "maxRequests": 50},
            "priorityBands": [{"priority": 100, "orderingPolicyRef": "edf-ordering-policy"}],
            "saturationDetector": {
                "pluginRef": "concurrency-detector",
                "parameters": {"maxConcurrency": 7, "concurrencyMode": "hybrid"},
            },
            "enableEviction": False,
        }
    )
    assert settings.max_bytes == 4 * 2**30
    assert (settings.ttl, settings.no_endpoint_ttl) == (30, 70)
    assert settings.band(100).ordering_policy_ref is Ordering.EDF
    assert settings.band(100).max_requests == settings.band(3).max_requests == 50
    detector = settings.saturation_detector
    assert isinstance(detector, ConcurrencyDetectorRef)
    assert detector.parameters.concurrency_mode is ConcurrencyMode.HYBRID


def test_every_queue_and_every_wait_is_bounded_by_default() -> None:
    settings = FlowControlSettings()
    assert 0 < settings.max_requests < 10_000
    assert settings.max_bytes > 0
    assert settings.band(0).max_requests
    assert settings.ttl < 90
    assert settings.no_endpoint_ttl < 90


def test_wait_without_a_limit_ends_before_nginx_gives_up() -> None:
    settings = FlowControlSettings.model_validate({"defaultRequestTTL": "0s", "noEndpointRequestTTL": "0"})
    assert settings.ttl == settings.no_endpoint_ttl == LONGEST_WAIT < 90


def test_bands_are_fair_between_tenants_by_default() -> None:
    assert FlowControlSettings().band(0).fairness_policy_ref is Fairness.ROUND_ROBIN


def test_negative_priorities_have_a_default_band_of_their_own() -> None:
    settings = FlowControlSettings.model_validate({"defaultNegativePriorityBand": {"maxRequests": 7}})
    assert settings.band(-1).max_requests == 7
    assert settings.band(0).max_requests == 5000


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"defaultRequestTTL": "100s"}, "defaultRequestTTL"),
        ({"defaultRequestTTL": "soon"}, "no duration"),
        ({"defaultRequestTTL": "-1s"}, "no duration"),
        ({"maxBytes": "many"}, "no size"),
        ({"defaultPriorityBand": {"maxRequests": 0}}, "maxRequests"),
        ({"priorityBands": [{"priority": 1}, {"priority": 1}]}, "priority 1"),
        ({"priorityBands": [{"priority": n} for n in range(33)]}, "priorityBands"),
        ({"priorityBands": [{"priority": 2**31}]}, "priority"),
        ({"saturationDetector": {"pluginRef": "crystal-ball"}}, "concurrency-detector"),
        ({"saturationDetector": {"parameters": {"maxConcurrency": 1}}}, "maxConcurrency"),
        ({"enableEviction": True}, "enableEviction"),
        ({"usageLimitPolicyPluginRef": "x"}, "usageLimitPolicyPluginRef"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        FlowControlSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1.5s", 1.5), ("1m", 60.0), ("1m0.5s", 60.5), ("100us", 0.0001)]
)
def test_durations(text: str, seconds: float) -> None:
    assert FlowControlSettings.model_validate({"defaultRequestTTL": text}).ttl == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("1k", 1000), ("1.5Ki", 1536), ("2M", 2_000_000), (5, 5)])
def test_sizes(text: str | int, size: int) -> None:
    assert FlowControlSettings.model_validate({"maxBytes": text}).max_bytes == size
