"""The Helm chart as the picker of one pool, without a control plane."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.picker import command
from controller.picker.options import ext_proc_settings, problem_of

Json = dict[str, Any]  # Any: objects in Kubernetes' shape

CHART = Path(__file__).parent.parent.parent / "charts" / "infergate"
PICKER = ("picker.enabled=true", 'picker.pool="gpu"')


def template(*values: str) -> list[Json]:
    """Objects of a release in the namespace llm."""
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("needs helm on PATH")
    settings = [part for value in (*PICKER, *values) for part in ("--set-json", value)]
    made = subprocess.run(
        [helm, "template", "gpu-picker", str(CHART), "--namespace", "llm", "--set", "nameOverride=picker", *settings],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [item for item in yaml.safe_load_all(made.stdout) if item]


def one(objects: list[Json], kind: str) -> Json:
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def container(objects: list[Json]) -> Json:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def parsed(objects: list[Json]) -> argparse.Namespace:
    """The arguments as the command reads them."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    name, *arguments = container(objects)["args"]
    assert name == "picker"
    return parser.parse_args(arguments)


def test_release_is_the_picker_alone() -> None:
    kinds = sorted(item["kind"] for item in template())
    assert kinds == ["Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]


def test_arguments_are_those_of_the_command() -> None:
    arguments = parsed(template("picker.replicas=2"))
    settings = ext_proc_settings(arguments)
    assert problem_of(arguments) == ""
    assert settings is not None
    assert settings.cluster is not None
    assert (settings.address, settings.health_address, settings.tls) == (":9002", ":9003", True)
    assert (settings.cluster.namespace, settings.cluster.name, arguments.replicas) == ("llm", "gpu", True)
    assert (settings.drain, arguments.grace, settings.body_memory) == (30.0, 600.0, 268435456)


def test_labels_and_ports_may_stand_for_an_inference_pool() -> None:
    objects = template('picker.endpointSelector={"app":"vllm","tier":"a"}', "picker.endpointTargetPorts=[8000,8001]")
    settings = ext_proc_settings(parsed(objects))
    assert settings is not None
    assert settings.cluster is not None
    assert settings.cluster.selector == {"app": "vllm", "tier": "a"}
    assert settings.cluster.ports == (8000, 8001)
    assert [rule["resources"] for rule in one(objects, "Role")["rules"]] == [["pods"]]


@pytest.mark.parametrize(("tls", "protocol"), [("true", "grpc"), ("false", "kubernetes.io/h2c")])
def test_service_says_how_it_is_spoken_to(tls: str, protocol: str) -> None:
    objects = template(f"picker.tls.enabled={tls}")
    port = one(objects, "Service")["spec"]["ports"][0]
    assert (port["port"], port["appProtocol"], port["targetPort"]) == (9002, protocol, "ext-proc")
    settings = ext_proc_settings(parsed(objects))
    assert settings is not None
    assert settings.tls is (tls == "true")


def test_certificate_comes_from_a_secret() -> None:
    objects = template('picker.tls.secretName="cert"')
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    settings = ext_proc_settings(parsed(objects))
    assert settings is not None
    (mount,) = container(objects)["volumeMounts"]
    assert (mount["mountPath"], pod["volumes"][0]["secret"]["secretName"]) == (str(settings.certificates), "cert")


def test_service_finds_the_pods_and_probes_ask_for_health() -> None:
    objects = template()
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(objects, "Service")["spec"]["selector"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] == "picker"
    probes = {name: probe["grpc"] for name, probe in container(objects).items() if name.endswith("Probe")}
    assert {probe["port"] for probe in probes.values()} == {9003}
    assert probes["readinessProbe"]["service"] == "readiness"


def test_roles_are_in_the_namespace_of_the_pool_and_read_alone() -> None:
    objects = template('picker.namespace="models"')
    role, binding = one(objects, "Role"), one(objects, "RoleBinding")
    assert {role["metadata"]["namespace"], binding["metadata"]["namespace"]} == {"models"}
    assert binding["subjects"][0]["namespace"] == "llm"
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_pod_is_confined_and_outlives_its_streams() -> None:
    pod = one(template(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["terminationGracePeriodSeconds"] == 640


@pytest.mark.parametrize("value", ['picker.pool=""', 'picker.tls.secret="x"', "picker.endpointTargetPorts=[0]"])
def test_value_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as problem:
        template(value)
    assert re.search(r"picker", problem.value.stderr)
