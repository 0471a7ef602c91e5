"""Gateways with 1,000 HTTPRoutes of ten rules each, in the ways in which so many rules come about."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Json = dict[str, Any]  # Any: a Kubernetes object

_API: Final = "gateway.networking.k8s.io/v1"
_RULES: Final = 10
_PATHS: Final = ("prefix", "exact path")
"""Kinds of rules that a path alone decides."""


@dataclass(frozen=True)
class Probe:
    """A request for one rule."""

    kind: str
    """What the rule matches beside a path, for a reader."""
    host: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """One way to have many rules."""

    name: str
    routes: int
    listeners: int
    """Each with a certificate and a host of its own; one alone is without both."""
    match: Callable[[int, int], Json]
    """Of a route and a rule, by their numbers."""

    @property
    def rules(self) -> int:
        return self.routes * _RULES

    def host(self, route: int) -> str:
        return f"host-{route % self.listeners}.example"

    def probes(self) -> Iterator[tuple[Probe, Probe]]:
        """For each kind of rule, a request for its first one and one for its last one on the first host."""
        last = (self.routes - 1) // self.listeners * self.listeners
        seen: set[str] = set()
        for rule in range(_RULES):
            kind = _kind(self.match(0, rule))
            if kind not in seen:
                seen.add(kind)
                other = max(number for number in range(_RULES) if _kind(self.match(last, number)) == kind)
                yield self._probe(0, rule), self._probe(last, other)

    def _probe(self, route: int, rule: int) -> Probe:
        match = self.match(route, rule)
        query = "".join(f"?{item['name']}={item['value']}" for item in match.get("queryParams", ()))
        return Probe(
            kind=_kind(match),
            host=self.host(route),
            method=match.get("method", "GET"),
            target=match["path"]["value"] + query,
            headers=tuple((item["name"], item["value"]) for item in match.get("headers", ())),
        )

    def write(self, directory: Path, *, port: int, backend: int) -> None:
        """Writes the resources, with a Service whose endpoint is a port of this machine."""
        directory.mkdir(parents=True)
        documents = [*self._gateway(port), *_service(backend), *(self._route(number) for number in range(self.routes))]
        text = "\n---\n".join(json.dumps(document) for document in documents)
        (directory / "resources.yaml").write_text(text)

    def _gateway(self, port: int) -> Iterator[Json]:
        listeners: list[Json] = [{"name": "http", "port": port, "protocol": "HTTP"}]
        if self.listeners > 1:
            listeners = [
                {
                    "name": f"https-{number}",
                    "port": port,
                    "protocol": "HTTPS",
                    "hostname": self.host(number),
                    "tls": {"certificateRefs": [{"name": f"host-{number}"}]},
                }
                for number in range(self.listeners)
            ]
            yield from (_secret(f"host-{number}", self.host(number)) for number in range(self.listeners))
        yield _resource(_API, "Gateway", "edge", spec={"gatewayClassName": "infergate", "listeners": listeners})

    def _route(self, number: int) -> Json:
        parent: Json = {"name": "edge"}
        if self.listeners > 1:
            parent["sectionName"] = f"https-{number % self.listeners}"
        rules = [
            {"matches": [self.match(number, rule)], "backendRefs": [{"name": "backend", "port": 80}]}
            for rule in range(_RULES)
        ]
        spec = {"parentRefs": [parent], "hostnames": [self.host(number)], "rules": rules}
        return _resource(_API, "HTTPRoute", f"route-{number:04}", spec=spec)


def layouts(*, routes: int, listeners: int) -> tuple[Layout, ...]:
    """Rules on a host of each listener, all on one host, and all on one path."""
    return (
        Layout("a host for each listener", routes, listeners, _mixed),
        Layout("one host", routes, 1, _mixed),
        Layout("one path", routes, 1, _tenant),
    )


def _mixed(route: int, rule: int) -> Json:
    """Prefixes, exact paths, and prefixes with a method, a header or a parameter, two of each."""
    path: Json = {"type": "PathPrefix", "value": f"/route-{route}/rule-{rule}"}
    more: tuple[Json, ...] = (
        {},
        {"path": {**path, "type": "Exact"}},
        {"method": "PUT"},
        {"headers": [{"name": "x-tenant", "value": f"tenant-{route}"}]},
        {"queryParams": [{"name": "tenant", "value": f"tenant-{route}"}]},
    )
    return {"path": path, **more[rule % len(more)]}


def _tenant(route: int, rule: int) -> Json:
    """One path for all, told apart by a header."""
    return {
        "path": {"type": "PathPrefix", "value": "/"},
        "headers": [{"name": "x-tenant", "value": f"tenant-{route}-{rule}"}],
    }


def _kind(match: Mapping[str, Any]) -> str:  # Any: a part of a route
    names = {"method": "method", "headers": "header", "queryParams": "parameter"}
    found = [word for field, word in names.items() if field in match]
    return found[0] if found else _PATHS[match["path"]["type"] == "Exact"]


def _service(port: int) -> tuple[Json, Json]:
    labels = {"kubernetes.io/service-name": "backend"}
    return (
        _resource("v1", "Service", "backend", spec={"ports": [{"name": "http", "port": 80}]}),
        _resource(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "backend",
            labels=labels,
            addressType="IPv4",
            endpoints=[{"addresses": ["127.0.0.1"]}],
            ports=[{"name": "http", "port": port}],
        ),
    )


def _secret(name: str, host: str) -> Json:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    chain = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    data = {"tls.crt": chain.decode(), "tls.key": private.decode()}
    return _resource("v1", "Secret", name, type="kubernetes.io/tls", stringData=data)


def _resource(version: str, kind: str, name: str, *, labels: Mapping[str, str] | None = None, **fields: Any) -> Json:
    """Any: fields of a Kubernetes object."""
    metadata: Json = {"name": name}
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
