"""The Helm chart: what it makes of values."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.dataplane.provision import COLLECTIONS, DISPENSABLE
from controller.provider.kubernetes.versions import DEFINITIONS
from controller.resources.gateway_api import CONTROLLER_NAME, GROUP
from controller.resources.kinds import MODELS, Refused, read
from tools.values_schema import FILE, values_schema

Json = dict[str, Any]  # any: objects in Kubernetes' shape

CHART = Path(__file__).parent.parent.parent / "charts" / "infergate"
CLUSTER_SCOPED = {"gatewayclasses", "gatewayclasses/status", "namespaces", "customresourcedefinitions", "tokenreviews"}


@pytest.fixture(scope="module")
def helm() -> str:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("needs helm on PATH")
    return found


def _template(helm: str, *values: str, name: str = "infergate", namespace: str = "gateways") -> list[Json]:
    """Objects of a release, as `helm template` gives them."""
    settings = [part for value in values for part in ("--set-json", value)]
    made = subprocess.run(
        [helm, "template", name, str(CHART), "--namespace", namespace, *settings],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [item for item in yaml.safe_load_all(made.stdout) if item]


def _one(objects: list[Json], kind: str) -> Json:
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def _granted(objects: list[Json], *kinds: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of the rules in roles of these kinds."""
    return {right for item in objects if item["kind"] in kinds for right in _rights(item)}


def _rights(role: Json) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("cy"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("ss") else name if name.endswith("s") else f"{name}s"


def test_helm_finds_nothing_to_complain_about(helm: str) -> None:
    found = subprocess.run([helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout


def test_release_has_these_objects(helm: str) -> None:
    kinds = sorted(item["kind"] for item in _template(helm))
    assert kinds == [
        *("ClusterRole", "ClusterRoleBinding", "Deployment", "GatewayClass", "NetworkPolicy", "PodDisruptionBudget"),
        *("Role", "RoleBinding", "Service", "ServiceAccount"),
    ]


SWITCHES = [
    ("networkPolicy.enabled=false", "NetworkPolicy", False),
    ("podDisruptionBudget.enabled=false", "PodDisruptionBudget", False),
    ("replicas=1", "PodDisruptionBudget", False),
    ("gatewayClass.create=false", "GatewayClass", False),
    ("rbac.create=false", "ClusterRole", False),
    ("serviceAccount.create=false", "ServiceAccount", False),
    ("serviceMonitor.enabled=true", "ServiceMonitor", True),
    ("podMonitor.enabled=true", "PodMonitor", True),
    ('gatewayClass.parameters={"replicas":3}', "GatewayParameters", True),
]


@pytest.mark.parametrize(("value", "kind", "is_there"), SWITCHES, ids=[value for value, _, _ in SWITCHES])
def test_value_switches_an_object(helm: str, value: str, kind: str, is_there: bool) -> None:
    assert (kind in {item["kind"] for item in _template(helm, value)}) is is_there


def test_every_kind_that_is_read_may_be_read(helm: str) -> None:
    granted = _granted(_template(helm), "ClusterRole")
    wanted = {
        (group, _plural(model.kind_name()), verb)
        for model in MODELS
        for group in (model.group, *model.former_groups)
        for verb in ("get", "list", "watch")
    }
    assert wanted <= granted


def test_what_is_provisioned_may_be_made_and_only_the_dispensable_deleted(helm: str) -> None:
    granted = _granted(_template(helm), "ClusterRole", "Role")
    for kind, path in COLLECTIONS.items():
        group = "" if path.startswith("/api/") else path.split("/")[2]
        assert {(group, _plural(kind), verb) for verb in ("get", "create", "patch")} <= granted
        assert ((group, _plural(kind), "delete") in granted) is (kind in DISPENSABLE)


def test_no_permission_is_wider_than_it_is_named(helm: str) -> None:
    granted = _granted(_template(helm), "ClusterRole", "Role")

    assert not [item for item in granted if "*" in "".join(item)]
    assert {resource for _, resource, verb in granted if verb == "delete"} == {
        "horizontalpodautoscalers",
        "poddisruptionbudgets",
    }
    assert {verb for _, resource, verb in granted if resource == "pods"} == {"get", "list", "watch"}
    assert {verb for _, resource, verb in granted if resource.endswith("/status")} == {"patch"}
    assert {verb for _, resource, verb in granted if resource == "events"} == {"create"}


def test_chosen_namespaces_leave_the_others_alone(helm: str) -> None:
    objects = _template(helm, 'watchNamespaces=["a","b"]')
    roles = [item for item in objects if item["kind"] == "Role" and item["metadata"]["namespace"] in ("a", "b")]
    everywhere = _granted(objects, "ClusterRole")
    arguments = _one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]

    assert {resource for _, resource, _ in everywhere} == CLUSTER_SCOPED
    assert [item["metadata"]["namespace"] for item in roles] == ["a", "b"]
    assert [item for item in arguments if item.startswith("--watch")] == ["--watch-namespace=a", "--watch-namespace=b"]


@pytest.mark.parametrize("chosen", [["a"], ["a", "default"]])
def test_events_are_made_beside_resources_of_chosen_namespaces_and_in_default(helm: str, chosen: list[str]) -> None:
    objects = _template(helm, f"watchNamespaces={json.dumps(chosen)}")
    roles = [item for item in objects if item["kind"] == "Role"]
    places = [item["metadata"]["namespace"] for item in roles if ("events.k8s.io", "events", "create") in _rights(item)]
    bound = [item["metadata"]["namespace"] for item in objects if item["kind"] == "RoleBinding"]

    assert sorted(places) == ["a", "default"]
    assert sorted(bound) == ["a", "default", "gateways"]


def test_definitions_are_looked_at_one_by_one(helm: str) -> None:
    rules = _one(_template(helm), "ClusterRole")["rules"]
    (rule,) = [item for item in rules if item["resources"] == ["customresourcedefinitions"]]

    assert rule["resourceNames"] == [f"{name}.{GROUP}" for name in DEFINITIONS]
    assert rule["verbs"] == ["get"]


def test_rights_of_the_page_are_those_of_the_chart(helm: str) -> None:
    rows = (CHART.parent.parent / "docs" / "cluster.md").read_text().partition("## Rights")[2].partition("\n## ")[0]
    told = {
        (group.strip("` ").replace("core", ""), resource.strip("` "), verb.strip())
        for row in rows.splitlines()
        if row.startswith("|") and "---" not in row and "| group |" not in row
        for groups, resources, verbs in [row.strip("| ").split("|")[:3]]
        for group in groups.split(",")
        for resource in resources.split(",")
        for verb in verbs.split(",")
    }
    granted = _granted(_template(helm), "ClusterRole", "Role")

    assert told == granted


def test_parameters_of_the_class_are_read_also_where_namespaces_are_chosen(helm: str) -> None:
    objects = _template(helm, 'watchNamespaces=["a"]', 'gatewayClass.parameters={"replicas":3}')
    reference = _one(objects, "GatewayClass")["spec"]["parametersRef"]
    read_in = {
        item["metadata"]["namespace"]
        for item in objects
        if item["kind"] == "Role" and ("infergate.dev", "gatewayparameters", "list") in _rights(item)
    }

    assert (reference["namespace"], read_in) == ("gateways", {"a", "gateways"})
    assert not isinstance(read(_one(objects, "GatewayParameters"), index=1), Refused)


def test_class_is_ours(helm: str) -> None:
    found = read(_one(_template(helm), "GatewayClass"), index=1)
    assert not isinstance(found, Refused)
    assert _one(_template(helm), "GatewayClass")["spec"]["controllerName"] == CONTROLLER_NAME


def test_control_plane_is_confined(helm: str) -> None:
    pod = _one(_template(helm), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_data_planes_find_every_pod_of_the_control_plane(helm: str) -> None:
    service = _one(_template(helm), "Service")["spec"]

    assert (service["clusterIP"], [item["port"] for item in service["ports"]]) == ("None", [8443, 8081])


def test_variables_of_a_service_named_infergate_do_not_reach_the_control_plane(helm: str) -> None:
    objects = _template(helm)

    assert _one(objects, "Service")["metadata"]["name"] == "infergate"
    assert _one(objects, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_service_and_budget_find_the_pods(helm: str) -> None:
    objects = _template(helm, 'podLabels={"app.kubernetes.io/x":"y"}', name="two")
    labels = _one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        _one(objects, "Service")["spec"]["selector"],
        _one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        _one(objects, "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert labels["app.kubernetes.io/component"] == "control-plane"


def test_rollout_takes_no_pod_before_another_is_ready(helm: str) -> None:
    spec = _one(_template(helm), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]["maxUnavailable"]) == (2, 0)


IMAGES = [
    ((), "ghcr.io/infergate/infergate:0.1.0"),
    (('image.repository="infergate"', 'image.tag="x"'), "infergate:x"),
    ((f'image.digest="sha256:{"a" * 64}"',), f"ghcr.io/infergate/infergate@sha256:{'a' * 64}"),
]


@pytest.mark.parametrize(("values", "image"), IMAGES)
def test_control_plane_and_data_planes_have_one_image(helm: str, values: tuple[str, ...], image: str) -> None:
    (container,) = _one(_template(helm, *values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert f"--image={image}" in container["args"]


def test_parameters_that_are_checked_are_those_of_the_models() -> None:
    assert FILE.read_text() == values_schema(FILE.read_text()), "run `make crds`"


REFUSED = [
    *("replica=3", "replicas=0", 'image.pullPolicy="Often"', 'watchNamespaces=["A"]', 'fullnameOverride="1"'),
    *('serviceAccount.name="A"', 'priorityClassName="a b"', 'gatewayClass.parameters={"nope":1}'),
    *('gatewayClass.parameters={"replicas":0}', 'gatewayClass.parameters={"nginx":{"worker":1}}'),
    'gatewayClass.parameters={"resources":{"nginx":{"limits":{"cpu":"much"}}}}',
]


@pytest.mark.parametrize("value", REFUSED)
def test_value_that_is_none_is_refused(helm: str, value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        _template(helm, value)
    assert value.partition("=")[0].split(".")[0] in refusal.value.stderr


def test_parameters_of_the_page_are_accepted(helm: str) -> None:
    page = (CHART.parent.parent / "docs" / "gateway-parameters.md").read_text()
    shown = yaml.safe_load(page.partition("```yaml\n")[2].partition("---\n")[0].partition("```")[0])
    objects = _template(helm, f"gatewayClass.parameters={json.dumps(shown['spec'])}")

    assert _one(objects, "GatewayParameters")["spec"] == shown["spec"]


NUMBERS = [
    *('watchNamespaces=["987"]', 'gatewayClass.name="987"', 'nameOverride="987"', 'priorityClassName="987"'),
    *('serviceAccount.name="987"', 'gatewayClass.parameters={"priorityClassName":"987"}', "replicas=1"),
    *('picker={"enabled":true,"pool":"987","namespace":"987","tls":{"secretName":"987"}}',),
]


@pytest.mark.parametrize("value", NUMBERS)
def test_name_of_digits_is_text(helm: str, value: str) -> None:
    objects = _template(helm, value, name="987", namespace="987")

    assert 987 not in [leaf for item in objects for leaf in _leaves(item)]
    assert "987" in [leaf for item in objects for leaf in _leaves(item)]


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def test_service_of_a_release_named_by_digits_starts_with_a_letter(helm: str) -> None:
    assert _one(_template(helm, name="987"), "Service")["metadata"]["name"] == "infergate-987"


def test_every_value_has_a_comment_and_a_rule() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if re.fullmatch(r"\s*[A-Za-z]+:( .*)?", line)]
    silent = [
        lines[index]
        for index in keys
        if not lines[index - 1].lstrip().startswith("#")
        and not _is_group(lines, index)
        and not _is_example(lines, index)
    ]
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert silent == []
    assert list(_without_rule(yaml.safe_load("\n".join(lines)), schema)) == []


def _is_group(lines: list[str], index: int) -> bool:
    """Whether a key has keys of its own below, which have comments."""
    return lines[index].endswith(":") and lines[index + 1].lstrip().startswith("#")


def _is_example(lines: list[str], index: int) -> bool:
    """Whether a key is part of a value whose shape is Kubernetes' own."""
    above = [line for line in lines[:index] if not line.startswith((" ", "#"))]
    return above[-1] == "resources:" if above else False


def _without_rule(values: Json, schema: Json) -> Iterator[str]:
    for name, value in values.items():
        rule = schema.get("properties", {}).get(name)
        if rule is None:
            yield name
        elif isinstance(value, dict) and "properties" in rule:
            yield from (f"{name}.{inner}" for inner in _without_rule(value, rule))
