"""The options of `infergate picker` that make it a server of ext_proc, named as the field's pickers name them."""

import argparse
import os
from pathlib import Path
from typing import Final

from controller.errors import SettingInvalid
from controller.picker.config import ExtProcSettings, PoolOfCluster

_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")
_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def add_ext_proc_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    group = parser.add_argument_group("for gateways that speak ext_proc")
    add = group.add_argument
    add("--ext-proc", metavar="[HOST]:PORT", help="serve Envoy's ext_proc, and gRPC health, on this address")
    add("--grpc-health-port", type=int, metavar="PORT", help="answer gRPC health here as well, without TLS")
    add(
        "--secure-serving",
        type=_boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="true|false",
        help="whether ext_proc is served with TLS (default: true, with a certificate made at the start)",
    )
    add("--cert-path", type=Path, metavar="DIR", help="directory with tls.crt and tls.key, followed")
    add("--pool-name", metavar="NAME", help="InferencePool to serve; with --pools: which one of the file")
    add(
        "--pool-namespace",
        metavar="NAME",
        default=os.environ.get("POD_NAMESPACE") or None,
        help="its namespace (default: $POD_NAMESPACE, else that of this pod, else `default`)",
    )
    add(
        "--pool-group",
        metavar="GROUP",
        default="inference.networking.k8s.io",
        help="its API group (default: %(default)s)",
    )
    add("--endpoint-selector", metavar="LABEL=VALUE,…", help="pods to serve, instead of an InferencePool's")
    add("--endpoint-target-ports", metavar="PORT,…", help="ports of these pods, each an endpoint of its own; up to 8")
    add(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        default=os.environ.get("KUBECONFIG") or None,
        help="how the API server is reached (default: $KUBECONFIG, else as a pod)",
    )
    add(
        "--drain-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="after a signal everything is served for so long while health says that it ends; open streams may go on "
        "for --grace after that (default: %(default)g)",
    )
    add(
        "--body-memory",
        type=int,
        default=512 * 1024 * 1024,
        metavar="BYTES",
        help="of request bodies in hand at once; what is above is refused with 429 (default: %(default)d)",
    )


def problem_of(arguments: argparse.Namespace) -> str:
    """What does not go together; empty when all does."""
    if arguments.ext_proc is None:
        if arguments.policy is not None:
            return "--policy goes with --replay; a picker that serves NGINX reads it from its pools"
        for name in ("pool_name", "endpoint_selector", "endpoint_target_ports", "cert_path", "grpc_health_port"):
            if getattr(arguments, name) is not None:
                return f"--{name.replace('_', '-')} goes with --ext-proc"
        return ""
    if arguments.policy is not None and arguments.pools is not None:
        return "--policy does not go with --pools: the pools of the file have policies"
    if arguments.endpoint_selector is not None and arguments.pools is not None:
        return "--endpoint-selector does not go with --pools"
    if arguments.cert_path is not None and not arguments.secure_serving:
        return "--cert-path does not go with --secure-serving=false"
    return ""


def ext_proc_settings(arguments: argparse.Namespace) -> ExtProcSettings | None:
    """The settings; None where ext_proc is not served. Raises SettingInvalid, or pydantic's ValidationError."""
    if arguments.ext_proc is None:
        return None
    namespace = arguments.pool_namespace or _own_namespace()
    cluster = _cluster(arguments, namespace=namespace) if arguments.pools is None else None
    pool = f"{namespace}/{arguments.pool_name}" if arguments.pool_name else ""
    if cluster is not None:
        pool = f"{cluster.namespace}/{cluster.name}"
    port = arguments.grpc_health_port
    return ExtProcSettings(
        address=arguments.ext_proc,
        health_address=f":{port}" if port is not None else None,
        tls=arguments.secure_serving,
        certificates=arguments.cert_path,
        pool=pool,
        cluster=cluster,
        drain=arguments.drain_timeout,
        body_memory=arguments.body_memory,
    )


def _cluster(arguments: argparse.Namespace, *, namespace: str) -> PoolOfCluster | None:
    selector = _labels(arguments.endpoint_selector) if arguments.endpoint_selector is not None else None
    if arguments.pool_name is None and selector is None:
        return None
    return PoolOfCluster(
        name=arguments.pool_name or "endpoints",
        namespace=namespace,
        group=arguments.pool_group,
        selector=selector,
        ports=_ports(arguments.endpoint_target_ports or ""),
        kubeconfig=arguments.kubeconfig,
        policy=arguments.policy,
    )


def _labels(text: str) -> dict[str, str]:
    """`a=b,c=d`. Raises SettingInvalid."""
    labels: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not name or name in labels or name.endswith("!") or value.startswith("="):
            raise SettingInvalid(f"--endpoint-selector: found {item!r}, accepted is LABEL=VALUE, several with commas")
        labels[name] = value
    return labels


def _ports(text: str) -> tuple[int, ...]:
    """Raises SettingInvalid."""
    try:
        return tuple(int(item) for item in text.split(",") if text)
    except ValueError as problem:
        raise SettingInvalid(f"--endpoint-target-ports: found {text!r}, accepted is PORT, several with commas") from (
            problem
        )


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"found {text!r}, accepted is true or false")


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"
