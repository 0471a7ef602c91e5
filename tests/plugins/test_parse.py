"""Configurations, what they come to, and what is wrong with them."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.plugins.parse import PickerConfig, parse
from controller.plugins.problems import Problem
from controller.plugins.types import FlowControlConfig, Scheduling


def _profile(*plugins: str, uses: str) -> str:
    """A configuration with these plugins, and a profile of what it uses, both in YAML."""
    return f"{{plugins: [{', '.join(plugins)}], schedulingProfiles: [{{name: a, plugins: [{uses}]}}]}}"


def _good(text: str) -> PickerConfig:
    found = parse(yaml.safe_load(text))
    assert isinstance(found, PickerConfig), [str(problem) for problem in found]
    return found


def _scheduling(text: str) -> Scheduling:
    found = _good(text).scheduling
    assert found is not None
    return found


def _problems(text: str) -> list[str]:
    found = parse(yaml.safe_load(text))
    assert isinstance(found, tuple)
    return [str(problem) for problem in found]


@pytest.mark.parametrize("config", [None, {}, {"plugins": []}, {"plugins": [{"type": "single-profile-handler"}]}])
def test_nothing_asked_is_the_default(config: object) -> None:
    assert parse(config) == PickerConfig()


def test_name_is_the_type_and_weight_is_one_by_default() -> None:
    found = _scheduling(_profile("{type: queue-scorer}", uses="{pluginRef: queue-scorer}"))

    assert [(part.type, part.name, part.weight) for part in found.scorers] == [("queue-scorer", "queue-scorer", 1.0)]


def test_parts_that_a_profile_lacks_are_filled_in() -> None:
    found = _scheduling("plugins: [{type: label-selector-filter}]")

    assert [part.type for part in found.filters] == ["healthy-filter", "label-selector-filter"]
    assert [part.type for part in found.scorers] == ["expected-time-scorer"]
    assert found.picker.type == "max-score-picker"


def test_profile_without_a_picker_has_the_declared_one() -> None:
    picker = "{type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}"
    found = _scheduling(_profile("{type: queue-scorer}", picker, uses="{pluginRef: queue-scorer}"))

    assert found.picker.parameters == {"maxNumOfEndpoints": 2}


def test_random_picker_needs_no_scorer() -> None:
    assert _scheduling("plugins: [{type: random-picker}]").scorers == ()


def test_healthy_filter_stays_where_the_profile_has_it() -> None:
    found = _scheduling(
        """
        plugins: [{type: healthy-filter}, {type: label-selector-filter}]
        schedulingProfiles: [{name: a, plugins: [{pluginRef: label-selector-filter}, {pluginRef: healthy-filter}]}]
        """
    )
    assert [part.type for part in found.filters] == ["label-selector-filter", "healthy-filter"]


def test_without_a_profile_all_scheduling_plugins_make_one() -> None:
    found = _scheduling(
        "plugins: [{type: queue-scorer}, {type: random-picker}, {type: utilization-detector}, {type: token-producer}]"
    )
    assert [part.type for part in (*found.filters, *found.scorers, found.picker)] == [
        "healthy-filter",
        "queue-scorer",
        "random-picker",
    ]


def test_detector_filters_where_a_profile_names_it() -> None:
    found = _scheduling(_profile("{type: concurrency-detector}", uses="{pluginRef: concurrency-detector}"))
    assert [part.type for part in found.filters] == ["healthy-filter", "concurrency-detector"]


@pytest.mark.parametrize(("filters", "count"), [("false", 1), ("true", 2)])
def test_context_length_filters_where_it_is_asked_to(filters: str, count: int) -> None:
    found = _scheduling(f"plugins: [{{type: context-length-aware, parameters: {{enableFiltering: {filters}}}}}]")

    assert len(found.filters) == count
    assert [part.type for part in found.scorers] == ["context-length-aware"]


def test_former_name_of_a_type_is_understood() -> None:
    assert [part.type for part in _scheduling("plugins: [{type: kv-cache-scorer}]").scorers] == [
        "kv-cache-utilization-scorer"
    ]


def test_same_type_may_come_twice_under_two_names() -> None:
    found = _scheduling(
        """
        plugins:
        - {type: label-selector-filter, name: a, parameters: {matchLabels: {x: a}}}
        - {type: label-selector-filter, name: b, parameters: {matchLabels: {x: b}}}
        """
    )
    assert [part.name for part in found.filters] == ["healthy-filter", "a", "b"]


MISTAKES = [
    ("3", "found 3, accepted is a mapping"),
    ("{plugin: []}", "plugin: unknown field, did you mean plugins?"),
    ("{kind: Config}", 'kind: found "Config", accepted is "EndpointPickerConfig"'),
    ("{apiVersion: v1}", 'apiVersion: found "v1", accepted is "llm-d.ai/v1"'),
    ("{featureGates: [flowControl=false]}", "featureGates[0]: found"),
    ("{featureGates: [dreams]}", 'featureGates[0]: found "dreams", accepted is'),
    ("{plugins: [{name: a}]}", "plugins[0].type: missing"),
    ("{plugins: [{type: kv-cache-utilisation-scorer}]}", "did you mean kv-cache-utilization-scorer"),
    ("{plugins: [{type: nonsense}]}", "there are: active-request-scorer, "),
    ("{plugins: [{type: queue-scorer}, {type: queue-scorer}]}", "which plugins[0] has too"),
    ("{plugins: [{type: queue-scorer, parameters: {a: 1}}]}", "plugins[0].parameters.a: unknown field, there are none"),
    ("{plugins: [{type: load-aware-scorer, parameters: {threshold: 0}}]}", "parameters.threshold: found 0"),
    ("{plugins: [{type: load-aware-scorer, parameters: {threshold: '9'}}]}", "a whole number, without quotes"),
    ("{plugins: [{type: load-aware-scorer, parameters: {threshold: true}}]}", "found true"),
    ("{plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 4}}]}", "a number of at most 3"),
    ("{plugins: [{type: expected-time-scorer, parameters: {harm: .nan}}]}", "parameters.harm: found nan"),
    ("{plugins: [{type: queue-scorer, parameters: [1]}]}", "parameters: found a list, accepted is a mapping"),
    ("{plugins: [{type: max-score-picker}, {type: random-picker}]}", "accepted is one picker"),
    (
        "{plugins: [{type: session-affinity-filter, parameters: {sessionIdConfig: {sources: [{}]}}}]}",
        "sources[0]: accepted is either a header or a cookie",
    ),
    (
        "{plugins: [{type: label-selector-filter, parameters: {matchExpressions: [{key: a, operator: In}]}}]}",
        "matchExpressions[0].values: accepted with In is at least one value",
    ),
    (
        "{plugins: [{type: session-affinity-filter, parameters: {encodedEndpointHeaderConfig: {header: x-own}}}]}",
        'encodedEndpointHeaderConfig.header: found "x-own", accepted is "x-session-token"',
    ),
    ("{plugins: [{type: utilization-filter}]}", "parameters.conditions: missing"),
    ("{schedulingProfiles: [{name: a}, {name: b}]}", "found 2 profiles, accepted is one"),
    ("{schedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer}]}]}", "which is not among the plugins"),
    (
        _profile("{type: fcfs-ordering-policy}", uses="{pluginRef: fcfs-ordering-policy}"),
        "which is of kind ordering",
    ),
    (
        _profile("{type: queue-scorer}", uses="{pluginRef: queue-scorer}, {pluginRef: queue-scorer}"),
        "for the second time",
    ),
    (
        _profile("{type: queue-scorer}", uses="{pluginRef: queue-scorer, weight: -1}"),
        "weight: found -1",
    ),
    ("{flowControl: {maxBytes: 1Q}}", "flowControl.maxBytes: found \"1Q\", accepted is a quantity"),
    ("{flowControl: {maxBytes: [1]}}", "flowControl.maxBytes: found a list, accepted is a quantity"),
    ("{flowControl: {maxBytes: true}}", "flowControl.maxBytes: found true, accepted is a quantity"),
    ("{flowControl: {maxRequests: 1M}}", "accepted is a number from 0 to 100000"),
    ("{flowControl: {defaultRequestTTL: 10}}", "defaultRequestTTL: found 10, accepted is text"),
    ("{flowControl: {defaultRequestTTL: soon}}", "accepted is a duration"),
    ("{flowControl: {defaultRequestTTL: 81s}}", "accepted is at most 80s"),
    ("{flowControl: {enableEviction: true}}", "accepted is false"),
    ("{flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}}", "priorityBands[1].priority: found 1"),
    ("{flowControl: {defaultPriorityBand: {fairnessPolicyRef: fair}}}", "accepted is a plugin of kind fairness: "),
    ("{flowControl: {defaultPriorityBand: {fairnessPolicyRef: edf-ordering-policy}}}", "which is of kind ordering"),
    ("{flowControl: {saturationDetector: {pluginRef: queue-scorer}}}", "saturationDetector.pluginRef: found"),
    ("{saturationDetector: {kvCacheUtilThreshold: 0}}", "saturationDetector.kvCacheUtilThreshold: found 0"),
    ("{parser: {pluginRef: cobol-parser}}", "parser.pluginRef: found"),
    ("{dataLayer: {discovery: {pluginRef: file-discovery}}}", "dataLayer.discovery: unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistake_is_the_only_problem_and_says_what_is_accepted(text: str, expected: str) -> None:
    [problem] = _problems(text)

    assert expected in problem


def test_every_mistake_is_told_in_the_order_of_the_document() -> None:
    found = _problems(
        """
        plugins: [{type: nope}, {type: queue-scorer, parameters: {a: 1}}, {type: nada}]
        schedulingProfiles: [{name: a, plugins: [{pluginRef: nope}, {pluginRef: lost}]}]
        flowControl: {defaultRequestTTL: 5m}
        """
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "plugins[0].type",
        "plugins[1].parameters.a",
        "plugins[2].type",
        "schedulingProfiles[0].plugins[1].pluginRef",
        "flowControl.defaultRequestTTL",
    ]
    assert sum("there are: active" in problem for problem in found) == 1


FLOW_CONTROL = [
    ("{maxBytes: 1Gi, maxRequests: '2k'}", {"max_bytes": 2**30, "max_requests": 2000}),
    ("{maxBytes: 1.5G}", {"max_bytes": 1_500_000_000}),
    ("{maxBytes: '3e2'}", {"max_bytes": 300}),
    ("{defaultRequestTTL: 1m10s}", {"default_request_ttl": 70.0}),
    ("{noEndpointRequestTTL: 1.5s}", {"no_endpoint_request_ttl": 1.5}),
    ("{defaultRequestTTL: 0s}", {"default_request_ttl": 0.0}),
    ("{enableEviction: false}", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FLOW_CONTROL)
def test_quantities_and_durations_are_numbers(text: str, expected: dict[str, Any]) -> None:
    assert _good(f"flowControl: {text}").flow_control == FlowControlConfig(**expected)


def test_bound_of_zero_leaves_a_band_its_default() -> None:
    found = _good("flowControl: {priorityBands: [{priority: 1, maxBytes: 0, maxRequests: 0}]}").flow_control

    assert [(band.max_bytes, band.max_requests) for band in found.priority_bands] == [(None, None)]


def test_names_of_policies_are_their_types() -> None:
    found = _good(
        """
        plugins:
        - {type: edf-ordering-policy, name: by-deadline}
        - {type: concurrency-detector, name: d, parameters: {maxConcurrency: 7}}
        flowControl:
          saturationDetector: {pluginRef: d}
          priorityBands:
          - {priority: -1}
          - {priority: 3, orderingPolicyRef: by-deadline, fairnessPolicyRef: global-strict-fairness-policy}
        """
    ).flow_control

    assert [band.priority for band in found.priority_bands] == [3, -1]
    assert found.priority_bands[0].ordering_policy_ref == "edf-ordering-policy"
    assert found.priority_bands[0].fairness_policy_ref == "global-strict-fairness-policy"
    assert found.saturation_detector is not None
    assert found.saturation_detector.plugin_ref == "concurrency-detector"
    assert found.saturation_detector.parameters == {"maxConcurrency": 7}


def test_limit_policy_is_the_ceiling_of_the_default_bands() -> None:
    found = _good(
        """
        plugins: [{type: static-usage-limit-policy, parameters: {threshold: 0.7}}]
        flowControl: {usageLimitPolicyPluginRef: static-usage-limit-policy, defaultPriorityBand: {maxRequests: 5}}
        """
    ).flow_control

    assert found.default_priority_band is not None
    assert (found.default_priority_band.max_requests, found.default_priority_band.usage_ceiling) == (5, 0.7)
    assert found.default_negative_priority_band is not None
    assert found.default_negative_priority_band.usage_ceiling == 0.7


@pytest.mark.parametrize("text", ["{pluginRef: utilization-detector}", "{queueDepthThreshold: 9}", "{}"])
def test_former_place_of_the_detector_is_read(text: str) -> None:
    found = _good(f"saturationDetector: {text}").flow_control.saturation_detector

    assert found is not None
    assert found.plugin_ref == "utilization-detector"
    assert found.parameters == ({"queueDepthThreshold": 9} if "queue" in text else {})


def test_declared_default_policies_need_no_reference() -> None:
    found = _good(
        """
        plugins:
        - {type: utilization-detector, parameters: {queueDepthThreshold: 9}}
        - {type: static-usage-limit-policy, parameters: {threshold: 0.7}}
        """
    ).flow_control

    assert found.saturation_detector is not None
    assert found.saturation_detector.parameters == {"queueDepthThreshold": 9}
    assert found.default_priority_band is not None
    assert found.default_priority_band.usage_ceiling == 0.7


@pytest.mark.parametrize(
    ("gates", "asks"),
    [("[]", False), ("[dataLayer, enableLegacyMetrics]", False), ("[flowControl]", True), ("[flowControl=true]", True)],
)
def test_gate_alone_asks_for_queues(gates: str, asks: bool) -> None:
    assert (_good(f"featureGates: {gates}").flow_control != FlowControlConfig()) == asks


@pytest.mark.parametrize(("gates", "asks"), [("[]", False), ("[flowControl]", True)])
def test_detector_that_filters_asks_for_no_queues(gates: str, asks: bool) -> None:
    text = _profile(
        "{type: utilization-detector, parameters: {queueDepthThreshold: 9}}", uses="{pluginRef: utilization-detector}"
    )
    found = _good(text.replace("{plugins", f"{{featureGates: {gates}, plugins", 1)).flow_control

    assert (found.saturation_detector is not None) == asks


def test_former_place_of_the_detector_has_no_effect_beside_the_later_one() -> None:
    found = _good(
        """
        plugins: [{type: concurrency-detector}]
        flowControl: {saturationDetector: {pluginRef: concurrency-detector}}
        saturationDetector: {pluginRef: utilization-detector}
        """
    )
    assert found.flow_control.saturation_detector is not None
    assert found.flow_control.saturation_detector.plugin_ref == "concurrency-detector"
    assert found.without_effect == ("saturationDetector",)


def test_what_has_no_effect_is_named() -> None:
    found = _good(
        """
        plugins:
        - {type: prefix-cache-scorer, parameters: {hashBlockSize: 64, matchLengthWeight: 0.5}}
        - {type: metrics-data-source, parameters: {scheme: https}}
        - {type: max-score-picker}
        schedulingProfiles:
        - name: a
          plugins: [{pluginRef: prefix-cache-scorer, weight: 2}, {pluginRef: max-score-picker, weight: 2}]
        """
    )
    assert found.without_effect == (
        "plugins[0].parameters.hashBlockSize",
        "plugins[1].parameters.scheme",
        "schedulingProfiles[0].plugins[1].weight",
    )


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["queue-scorer", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "name", "parameters", "plugins", "pluginRef", "weight", "threshold", "flowControl"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["plugins", "schedulingProfiles", "flowControl", "saturationDetector", "featureGates", "parser"]
        ),
        _VALUES,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_document_is_judged(config: dict[str, Any]) -> None:
    found = parse(config)

    assert isinstance(found, PickerConfig) or (found and all(isinstance(item, Problem) and str(item) for item in found))
