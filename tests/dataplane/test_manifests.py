"""The objects of a Gateway's data plane."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import yaml

from controller.dataplane.manifests import ControlPlane, manifests, name_of
from controller.resources.gateway_api import CONTROLLER_NAME, Gateway, GatewayClass, ListenerSet
from controller.resources.meta import Key, Resource
from controller.resources.parameters import GatewayParameters
from controller.resources.snapshot import snapshot
from controller.topology.build import build
from controller.topology.types import GatewayState

Json = dict[str, Any]  # any: objects in Kubernetes' shape

CONTROL_PLANE = ControlPlane(
    image="registry.example/infergate:1", server="https://infergate.infergate-system:8443", certificates="PEM"
)
HTTP = "{name: http, port: 80, protocol: HTTP}"


def state_of(
    *,
    name: str = "web",
    listeners: str = HTTP,
    of_set: str = "",
    more: str = "",
    parameters: str | None = None,
    of_class: str = "own",
) -> GatewayState:
    """A Gateway `shop/NAME` with the fields of `more`, listeners of a ListenerSet, and parameters as YAML."""
    documents: list[tuple[type[Resource], str]] = [
        (GatewayClass, f"metadata: {{name: {of_class}}}\nspec: {{controllerName: {CONTROLLER_NAME}}}")
    ]
    if parameters is not None:
        documents.append((GatewayParameters, f"metadata: {{name: p, namespace: shop}}\nspec: {parameters}"))
        more = "infrastructure: {parametersRef: {group: infergate.dev, kind: GatewayParameters, name: p}}"
    if of_set:
        more = "allowedListeners: {namespaces: {from: Same}}"
        spec = f"parentRef: {{name: {name}}}\n  listeners: [{of_set}]"
        documents.append((ListenerSet, f"metadata: {{name: more, namespace: shop}}\nspec:\n  {spec}"))
    spec = f"gatewayClassName: {of_class}\n  listeners: [{listeners}]\n  {more}"
    documents.append((Gateway, f"metadata: {{name: {name}, namespace: shop, uid: u-1}}\nspec:\n  {spec}"))
    found = [
        model.model_validate({"apiVersion": model.versions[0], "kind": model.__name__, **yaml.safe_load(text)})
        for model, text in documents
    ]
    (gateway,) = build(snapshot(found), controller_name=CONTROLLER_NAME).gateways
    return gateway


def _objects(gateway: GatewayState) -> dict[str, Json]:
    return {item["kind"]: item for item in manifests(gateway, control_plane=CONTROL_PLANE)}


def _made(**arguments: Any) -> dict[str, Json]:  # any: those of _state
    return _objects(state_of(**arguments))


def _pod(objects: dict[str, Json]) -> Json:
    found: Json = objects["Deployment"]["spec"]["template"]["spec"]
    return found


def _values(value: Any, key: str) -> Iterator[Any]:  # any: a part of an object
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == key)
        yield from (found for item in value.values() for found in _values(item, key))
    elif isinstance(value, list):
        yield from (found for item in value for found in _values(item, key))


def test_gateway_has_these_objects_in_its_namespace() -> None:
    found = _made()

    assert list(found) == ["ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]
    assert {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found.values()} == {
        ("shop", "infergate-web")
    }


def test_every_object_belongs_to_the_gateway() -> None:
    for item in _made().values():
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Gateway", "web", "u-1", True)


def test_same_gateway_gives_the_same_bytes() -> None:
    more = "infrastructure: {labels: {b: '1', a: '2'}, annotations: {d: '3', c: '4'}}"
    swapped = "infrastructure: {labels: {a: '2', b: '1'}, annotations: {c: '4', d: '3'}}"

    first, second = (manifests(state_of(more=text), control_plane=CONTROL_PLANE) for text in (more, swapped))
    assert json.dumps(first) == json.dumps(second)


def test_infrastructure_is_on_every_object_and_on_pods() -> None:
    found = _made(more="infrastructure: {labels: {team: a, app.kubernetes.io/name: mine}, annotations: {note: b}}")
    metadata = [item["metadata"] for item in (*found.values(), found["Deployment"]["spec"]["template"])]

    for item in metadata:
        assert item["labels"]["team"] == "a"
        assert item["labels"]["gateway.networking.k8s.io/gateway-name"] == "web"
        assert item["labels"]["gateway.networking.k8s.io/gateway-class-name"] == "own"
        assert item["labels"]["app.kubernetes.io/name"] == "infergate"
        assert item["annotations"]["note"] == "b"


NAMES = ["a" * 63, "a" * 253, "9." + "b" * 240 + ".c", "a.b", "x" * 53, "x" * 54, "a" * 52 + ".b"]


@pytest.mark.parametrize("name", NAMES, ids=len)
def test_long_name_of_a_gateway_gives_valid_names_and_labels(name: str) -> None:
    found = _made(name=name, of_class="c" * 200)
    for item in found.values():
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", item["metadata"]["name"])
        for value in item["metadata"]["labels"].values():
            assert re.fullmatch("[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)
    arguments = _pod(found)["containers"][0]["args"]
    assert arguments[arguments.index("--gateway") + 1] == f"shop/{name}"


def test_long_names_that_begin_alike_stay_apart() -> None:
    first, second = ("a" * 200 + end for end in ("b", "c"))
    keys = [Key("gateway.networking.k8s.io", "Gateway", "shop", name) for name in (first, second)]

    assert name_of(keys[0]) != name_of(keys[1])
    labels = [_made(name=key.name)["Deployment"]["spec"]["selector"]["matchLabels"] for key in keys]
    assert labels[0] != labels[1]


def test_selectors_are_labels_of_the_pods() -> None:
    found = _made(parameters="{autoscaling: {maxReplicas: 4}, podLabels: {app.kubernetes.io/name: mine, team: a}}")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [*_values(found, "matchLabels"), found["Service"]["spec"]["selector"]]

    assert len(selectors) == 5
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert labels["team"] == "a"


PORTS = [
    (HTTP, [80]),
    (f"{HTTP}, {{name: b, port: 80, protocol: HTTP, hostname: b.example}}", [80]),
    ("{name: b, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}, " + HTTP, [80, 8443]),
    ("{name: sctp, port: 9, protocol: SCTP}, " + HTTP, [80]),
    ("{name: sctp, port: 9, protocol: SCTP}", [9]),
    ("{name: tcp, port: 9, protocol: TCP}, " + HTTP, [9, 80]),
]


@pytest.mark.parametrize(("listeners", "ports"), PORTS)
def test_service_has_the_ports_of_accepted_listeners(listeners: str, ports: list[int]) -> None:
    found = _made(listeners=listeners)["Service"]["spec"]["ports"]

    assert [item["port"] for item in found] == ports
    assert [(item["name"], item["targetPort"]) for item in found] == [(f"port-{port}", port) for port in ports]


def test_service_has_a_port_of_each_transport() -> None:
    listeners = "{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53, protocol: TCP}"
    found = _made(listeners=listeners)["Service"]["spec"]["ports"]

    assert [(item["name"], item["port"], item["protocol"], item["targetPort"]) for item in found] == [
        ("port-53", 53, "TCP", 53),
        ("port-53-udp", 53, "UDP", 53),
    ]


def test_service_has_the_ports_of_listener_sets() -> None:
    found = _made(of_set="{name: udp, port: 53, protocol: UDP}, {name: lost, port: 80, protocol: TCP}")["Service"][
        "spec"
    ]

    assert [(item["port"], item["protocol"]) for item in found["ports"]] == [(53, "UDP"), (80, "TCP")]


def test_port_of_datagrams_leaves_the_pods_as_they_are() -> None:
    assert _made()["Deployment"] == _made(listeners=f"{HTTP}, {{name: u, port: 8081, protocol: UDP}}")["Deployment"]


def test_listener_that_comes_leaves_the_pods_as_they_are() -> None:
    more = f"{HTTP}, {{name: b, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: b}}]}}}}"
    assert _made()["Deployment"] == _made(listeners=more)["Deployment"]


def test_certificates_that_change_leave_the_pods_as_they_are() -> None:
    gateway = state_of()
    rotated = ControlPlane(image=CONTROL_PLANE.image, server=CONTROL_PLANE.server, certificates="PEM2")
    found = {item["kind"]: item for item in manifests(gateway, control_plane=rotated)}

    assert found["ConfigMap"]["data"] == {"ca.crt": "PEM2"}
    assert found["Deployment"] == _objects(gateway)["Deployment"]


def test_own_ports_give_way_to_listeners() -> None:
    listeners = "{name: a, port: 8081, protocol: HTTP}, {name: b, port: 8082, protocol: HTTP}"
    nginx, picker = _pod(_made(listeners=listeners))["containers"]

    assert nginx["ports"] == [{"name": "health", "containerPort": 8083, "protocol": "TCP"}]
    assert nginx["args"][nginx["args"].index("--probes") + 1] == "8083"
    assert picker["args"][picker["args"].index("--metrics-address") + 1] == "0.0.0.0:8084"


ADDRESSES = "addresses: [{value: 10.0.0.2}, {value: 10.0.0.1}]"


def test_load_balancer_is_asked_for_the_first_address() -> None:
    spec = _made(more=ADDRESSES)["Service"]["spec"]
    assert (spec["type"], spec["loadBalancerIP"]) == ("LoadBalancer", "10.0.0.2")
    assert "externalIPs" not in spec


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort"])
def test_other_services_take_the_addresses_themselves(kind: str) -> None:
    gateway = replace(state_of(parameters=f"{{service: {{type: {kind}}}}}"), addresses=("10.0.0.2", "10.0.0.1"))
    spec = _objects(gateway)["Service"]["spec"]

    assert (spec["externalIPs"], "loadBalancerIP" in spec) == (["10.0.0.2", "10.0.0.1"], False)


def test_service_follows_parameters() -> None:
    parameters = "{service: {annotations: {a: b}, loadBalancerClass: x.example/y, externalTrafficPolicy: Local}}"
    service = _made(parameters=parameters)["Service"]

    assert service["metadata"]["annotations"] == {"a": "b"}
    assert (service["spec"]["loadBalancerClass"], service["spec"]["externalTrafficPolicy"]) == ("x.example/y", "Local")


def test_pods_are_confined() -> None:
    pod = _pod(_made())

    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    added = []
    for container in pod["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"]["drop"] == ["ALL"]
        added += context["capabilities"].get("add", [])
    assert added == ["NET_BIND_SERVICE"]
    assert not list(_values(pod, "hostPath")) + list(_values(pod, "hostNetwork")) + list(_values(pod, "privileged"))


def test_token_is_for_the_control_plane_only() -> None:
    sources = _pod(_made())["volumes"][1]["projected"]["sources"]

    assert sources[0]["serviceAccountToken"]["audience"] == "infergate.dev/data-plane"
    assert sources[1]["configMap"]["name"] == "infergate-web"


def test_rollout_takes_no_pod_before_another_is_ready() -> None:
    spec = _made()["Deployment"]["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert [item["topologyKey"] for item in spec["template"]["spec"]["topologySpreadConstraints"]] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]


def test_autoscaler_has_the_say_over_replicas() -> None:
    found = _made(parameters="{replicas: 3, autoscaling: {minReplicas: 2, maxReplicas: 5, memoryUtilization: 80}}")
    scaling = found["HorizontalPodAutoscaler"]["spec"]

    assert "replicas" not in found["Deployment"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (2, 5)
    assert [
        (item["resource"]["name"], item["resource"]["target"]["averageUtilization"]) for item in scaling["metrics"]
    ] == [
        ("cpu", 70),
        ("memory", 80),
    ]


MEASURED = [
    ("{limits: {memory: 1Gi}}", {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}),
    ("{limits: {cpu: 2}}", {"requests": {"memory": "128Mi"}, "limits": {"cpu": "2"}}),
    ("{requests: {cpu: 2, memory: 1Gi}}", {"requests": {"cpu": "2", "memory": "1Gi"}}),
]


@pytest.mark.parametrize(("given", "resources"), MEASURED)
def test_what_an_autoscaler_measures_is_requested(given: str, resources: Json) -> None:
    scaling = "autoscaling: {maxReplicas: 5, memoryUtilization: 80}"
    nginx, _ = _pod(_made(parameters=f"{{{scaling}, resources: {{nginx: {given}}}}}"))["containers"]

    assert nginx["resources"] == resources


def test_memory_that_no_autoscaler_measures_is_not_requested() -> None:
    parameters = "{autoscaling: {maxReplicas: 5}, resources: {nginx: {limits: {cpu: 2}}}}"
    nginx, _ = _pod(_made(parameters=parameters))["containers"]

    assert nginx["resources"] == {"limits": {"cpu": "2"}}


def test_single_pod_has_neither_a_budget_nor_peers() -> None:
    found = _made(parameters="{replicas: 1}")

    assert "PodDisruptionBudget" not in found
    assert "--replicas" not in _pod(found)["containers"][1]["args"]
    assert "--replicas" in _pod(_made())["containers"][1]["args"]


def test_pods_follow_parameters() -> None:
    parameters = """
      image: mine:2
      imagePullPolicy: Always
      imagePullSecrets: [{name: pull}]
      resources: {nginx: {limits: {cpu: 2, memory: 1Gi}}}
      podAnnotations: {e: f}
      nodeSelector: {disk: fast}
      affinity: {nodeAffinity: {x: y}}
      tolerations: [{key: gpu, operator: Exists, tolerationSeconds: 5}]
      topologySpreadConstraints: [{topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]
      priorityClassName: high
      gracePeriod: 1m
    """
    found = _made(parameters=parameters)
    pod = _pod(found)
    nginx, picker = pod["containers"]

    assert {container["image"] for container in pod["containers"]} == {"mine:2"}
    assert nginx["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert picker["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    assert found["Deployment"]["spec"]["template"]["metadata"]["annotations"] == {"e": "f"}
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert (pod["nodeSelector"], pod["affinity"]) == ({"disk": "fast"}, {"nodeAffinity": {"x": "y"}})
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}]
    assert [item["topologyKey"] for item in pod["topologySpreadConstraints"]] == ["rack"]
    assert pod["priorityClassName"] == "high"
    assert pod["terminationGracePeriodSeconds"] == 75


def test_streams_have_their_grace_and_the_picker_outlives_them() -> None:
    pod = _pod(_made(parameters="{gracePeriod: 1m}"))
    nginx, picker = (dict(pairwise(container["args"])) for container in pod["containers"])

    assert (nginx["--drain-delay"], nginx["--grace"]) == ("5", "60")
    assert (picker["--outlive"], picker["--grace"]) == ("lock", "68")
    assert pod["terminationGracePeriodSeconds"] > 68
