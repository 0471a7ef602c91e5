"""Resources as YAML, in as few words as a test needs. All are in the namespace `default`; the Gateway is `edge`."""

import json
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]  # Any: a Kubernetes object

_GATEWAYS = "gateway.networking.k8s.io"
_POOLS = "inference.networking.k8s.io"


def listener(port: int, *, name: str = "http", hostname: str | None = None, certificate: str | None = None) -> Json:
    """A listener; with the name of a Secret it speaks HTTPS."""
    made: Json = {"name": name, "port": port, "protocol": "HTTPS" if certificate else "HTTP"}
    if hostname:
        made["hostname"] = hostname
    if certificate:
        made["tls"] = {"certificateRefs": [{"name": certificate}]}
    return made


def gateway(*listeners: Json, **more: object) -> Json:
    spec = {"gatewayClassName": "infergate", "listeners": list(listeners), **more}
    return _resource(f"{_GATEWAYS}/v1", "Gateway", "edge", **spec)


def listener_set(name: str, *listeners: Json) -> Json:
    return _resource(f"{_GATEWAYS}/v1", "ListenerSet", name, parentRef={"name": "edge"}, listeners=list(listeners))


def route(
    name: str, *rules: Json, hostnames: Sequence[str] = (), section: str | None = None, parents: Sequence[Json] = ()
) -> Json:
    """A route on all listeners of the Gateway, on the one called `section`, or on those of other `parents`."""
    own = {"name": "edge", "sectionName": section} if section else {"name": "edge"}
    spec: Json = {"parentRefs": list(parents) or [own], "rules": list(rules)}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return _resource(f"{_GATEWAYS}/v1", "HTTPRoute", name, **spec)


def call_route(name: str, *rules: Json, hostnames: Sequence[str] = (), section: str | None = None) -> Json:
    """The same for calls of gRPC."""
    return {**route(name, *rules, hostnames=hostnames, section=section), "kind": "GRPCRoute"}


def call_rule(
    *backends: Json, service: str = "", method: str = "", headers: Sequence[Json] = (), **more: object
) -> Json:
    """A rule for a service, a method, or every call."""
    names = {name: value for name, value in (("service", service), ("method", method)) if value}
    match: Json = {"method": names} if names else {}
    if headers:
        match["headers"] = list(headers)
    return {"matches": [match], "backendRefs": list(backends), **more}


def rule(
    *backends: Json, path: str = "/", matches: Sequence[Json] = (), filters: Sequence[Json] = (), **more: object
) -> Json:
    """A rule for a prefix, or for `matches`."""
    made: Json = {"matches": list(matches) or [{"path": {"type": "PathPrefix", "value": path}}], **more}
    if backends:
        made["backendRefs"] = list(backends)
    if filters:
        made["filters"] = list(filters)
    return made


def to_pool(name: str, **more: object) -> Json:
    return {"group": _POOLS, "kind": "InferencePool", "name": name, **more}


def to_service(name: str, **more: object) -> Json:
    return {"name": name, "port": 80, **more}


def pool(name: str, *addresses: str, mode: str = "FailClose") -> list[Json]:
    """A pool with its endpoints."""
    picker = {"group": "infergate.dev", "kind": "Picker", "name": "default", "failureMode": mode}
    made = _resource(
        f"{_POOLS}/v1",
        "InferencePool",
        name,
        selector={"matchLabels": {"nobody": "has-this"}},
        targetPorts=[{"number": 8000}],
        endpointPickerRef=picker,
    )
    return [made, *_slices(name, addresses, label="infergate.dev/inference-pool")]


def picked_pool(
    name: str,
    *addresses: str,
    pickers: Sequence[str],
    mode: str = "FailClose",
    protocol: str = "http",
    tls: bool = True,
    port: int = 9002,
) -> list[Json]:
    """A pool with its endpoints, and the Service of its external picker, which is called like the pool."""
    made, *slices = pool(name, *addresses, mode=mode)
    return [*slices, *external(made, pickers=pickers, protocol=protocol, tls=tls, port=port)]


def external(
    pool: Json, *, pickers: Sequence[str], protocol: str = "http", tls: bool = True, port: int = 9002
) -> list[Json]:
    """A pool with an external picker in the place of its own, and the Service of that."""
    name = pool["metadata"]["name"]
    mode = pool["spec"]["endpointPickerRef"].get("failureMode", "FailClose")
    reference = {"name": f"{name}-picker", "port": {"number": port}, "failureMode": mode}
    made = {**pool, "spec": {**pool["spec"], "endpointPickerRef": reference, "appProtocol": protocol}}
    ports = [{"port": port, "appProtocol": "http2" if tls else "kubernetes.io/h2c"}]
    named = _resource("v1", "Service", f"{name}-picker", ports=ports)
    return [made, named, *_slices(f"{name}-picker", pickers, label="kubernetes.io/service-name")]


def picker_policy(target: str, **spec: object) -> Json:
    """A policy for a pool, of the same name."""
    return _resource("infergate.dev/v1alpha1", "PickerPolicy", target, targetRefs=[{"name": target}], **spec)


def model_rewrite(name: str, target: str, *rules: Json, sticky: str = "") -> Json:
    """Other names for models of a pool."""
    made = _resource("llm-d.ai/v1alpha2", "InferenceModelRewrite", name, poolRef={"name": target}, rules=list(rules))
    if sticky:
        made["metadata"]["annotations"] = {"infergate.dev/sticky-header": sticky}
    return made


def renamed(*models: str, **targets: int) -> Json:
    """A rule of a rewrite: names of models, and the targets' weights by name, `_` for `-`."""
    return {
        "matches": [{"model": {"value": model}} for model in models],
        "targets": [{"modelRewrite": name.replace("_", "-"), "weight": weight} for name, weight in targets.items()],
    }


def service(name: str, *addresses: str, protocol: str = "http") -> list[Json]:
    """A Service of port 80 with its endpoints."""
    made = _resource("v1", "Service", name, ports=[{"port": 80, "appProtocol": protocol}])
    return [made, *_slices(name, addresses, label="kubernetes.io/service-name")]


def secret(name: str, *, chain: bytes, key: bytes) -> Json:
    """A Secret with a certificate."""
    made = _resource("v1", "Secret", name)
    del made["spec"]
    return {**made, "type": "kubernetes.io/tls", "stringData": {"tls.crt": chain.decode(), "tls.key": key.decode()}}


def authorities(name: str, *chains: bytes) -> Json:
    """A ConfigMap with the certificates of authorities."""
    made = _resource("v1", "ConfigMap", name)
    del made["spec"]
    return {**made, "data": {"ca.crt": b"".join(chains).decode()}}


def tls_policy(
    target: str, *, kind: str = "Service", authorities: Sequence[str] = ("ca",), **validation: object
) -> Json:
    """A BackendTLSPolicy for a Service or an InferencePool, of the same name."""
    references = [{"group": "", "kind": "ConfigMap", "name": name} for name in authorities]
    group = "" if kind == "Service" else _POOLS
    return _resource(
        f"{_GATEWAYS}/v1",
        "BackendTLSPolicy",
        target,
        targetRefs=[{"group": group, "kind": kind, "name": target}],
        validation={"caCertificateRefs": references, "hostname": "backend.example", **validation},
    )


def request_headers(**change: object) -> Json:
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}


def response_headers(**change: object) -> Json:
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": change}


def redirect(**fields: object) -> Json:
    return {"type": "RequestRedirect", "requestRedirect": fields}


def rewrite(**fields: object) -> Json:
    return {"type": "URLRewrite", "urlRewrite": fields}


def header(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def as_yaml(*documents: Json | list[Json]) -> str:
    """One text of all documents. JSON is YAML."""
    flat = [item for document in documents for item in (document if isinstance(document, list) else [document])]
    return "\n---\n".join(json.dumps(item, indent=1) for item in flat)


def _slices(name: str, addresses: Sequence[str], *, label: str) -> list[Json]:
    """A slice for each address, since ports differ."""
    made = []
    for number, address in enumerate(addresses):
        ip, _, port = address.rpartition(":")
        item = _resource("discovery.k8s.io/v1", "EndpointSlice", f"{name}-{label.partition('.')[0]}-{number}")
        del item["spec"]
        item["metadata"]["labels"] = {label: name}
        made.append(
            {
                **item,
                "addressType": "IPv6" if ":" in ip else "IPv4",
                "endpoints": [{"addresses": [ip.strip("[]")]}],
                "ports": [{"port": int(port), "protocol": "TCP"}],
            }
        )
    return made


def _resource(version: str, kind: str, name: str, **spec: object) -> Json:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
