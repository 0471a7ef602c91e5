"""Directories of resources for benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REVISION_HEADER: Final = "x-revision"
"""Header of answers whose value is the revision that a route was saved with."""

_GATEWAY: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: infergate
  listeners:
  - {{name: http, port: {port}, protocol: HTTP}}
"""

_ROUTE: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{host}]
  rules:
  - matches:
    - path: {{type: PathPrefix, value: {path}}}
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{{name: {header}, value: "{revision}"}}]
    backendRefs: [{{name: {name}, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ports: [{{name: http, port: 80, targetPort: {backend}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {backend}}}]
"""

_POOL: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: picked}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{picked}]
  rules:
  - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: llm}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: model}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{model}]
  rules:
  - matches: [{{headers: [{{name: X-Gateway-Model-Name, value: llama-3.1-8b-instruct}}]}}]
    backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: llm}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: llm}}
spec:
  selector: {{matchLabels: {{app: llm}}}}
  targetPorts: [{{number: 8000}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: service}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{service}]
  rules:
  - backendRefs: [{{name: llm, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {{name: llm}}
spec:
  ports: [{{name: http, port: 80}}]
"""

# One slice per port: the endpoints of the pool, and of the Service beside it, are ports of one machine.
_SLICE: Final = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: llm-{port}, labels: {{{label}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: http, port: {port}}}]
"""

_EXTERNAL: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: external}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{host}]
  rules:
  - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: external}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: external}}
spec:
  selector: {{matchLabels: {{app: external}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: picker, port: {{number: 9002}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: picker}}
spec:
  ports: [{{name: grpc, port: 9002, appProtocol: kubernetes.io/h2c}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: picker, labels: {{kubernetes.io/service-name: picker}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{name: grpc, port: {picker}}}]
"""

# Everything that a policy can switch on is on.
_TUNED: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{host}]
  rules:
  - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: {name}}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  targetPorts: [{{number: 8000}}]
---
apiVersion: infergate.dev/v1alpha1
kind: PickerPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{name: {name}}}]
  fallbacks: 2
  explain: true
  usage: {usage}
  priority: {{default: 1, maximum: 10}}
  fairness: {{tenantBy: Credential}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {{name: {name}-urgent}}
spec: {{priority: 10, poolRef: {{name: {name}}}}}
"""

CHAT_PATH: Final = "/v1/chat/completions"
EXTERNAL_HOST: Final = "external.example.com"
PICKED_HOST: Final = "picked.example.com"
SERVICE_HOST: Final = "service.example.com"
MODEL_HOST: Final = "model.example.com"


def write_pool(directory: Path, *, backends: Sequence[int]) -> None:
    """Routes to an InferencePool, to it by the model, and to a plain Service, with all backends' ports as endpoints."""
    labels = ("infergate.dev/inference-pool: llm", "kubernetes.io/service-name: llm")
    slices = [
        _SLICE.format(port=port, label=label).replace("llm-", prefix)
        for label, prefix in zip(labels, ("pool-", "service-"), strict=True)
        for port in backends
    ]
    text = _POOL.format(picked=PICKED_HOST, service=SERVICE_HOST, model=MODEL_HOST)
    (directory / "pool.yaml").write_text(text + "".join(slices))


def write_tuned_pool(directory: Path, *, name: str, backends: Sequence[int], usage: bool = True) -> str:
    """A route to an InferencePool with a policy that switches everything on. Returns the route's host.

    `usage`: also that the tokens are read from each answer.
    """
    host = f"{name}.example.com"
    slices = [
        _SLICE.format(port=port, label=f"infergate.dev/inference-pool: {name}").replace("llm-", f"{name}-")
        for port in backends
    ]
    (directory / f"{name}.yaml").write_text(
        _TUNED.format(name=name, host=host, usage=str(usage).lower()) + "".join(slices)
    )
    return host


def write_external_pool(directory: Path, *, backends: Sequence[int], picker: int) -> None:
    """A route to an InferencePool whose picker, which speaks plain text, listens on the port `picker`."""
    slices = [
        _SLICE.format(port=port, label="infergate.dev/inference-pool: external").replace("llm-", "external-")
        for port in backends
    ]
    (directory / "external.yaml").write_text(_EXTERNAL.format(host=EXTERNAL_HOST, picker=picker) + "".join(slices))


def write_gateway(directory: Path, *, port: int) -> None:
    """A Gateway with one listener."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "gateway.yaml").write_text(_GATEWAY.format(port=port))


@dataclass(frozen=True)
class Routes:
    """Routes with a Service and an EndpointSlice each, in a directory of their own or together in one file."""

    directory: Path
    count: int
    backend: int
    """Port of every endpoint."""
    in_one_file: bool = False

    def write(self) -> None:
        """Writes all of them with revision 0, and makes the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.in_one_file:
            self.save(0, revision=0)
        else:
            for number in range(self.count):
                self.save(number, revision=0)

    def save(self, number: int, *, revision: int) -> None:
        """Saves the file of a route as editors do: another file takes its place."""
        if self.in_one_file:
            texts = (self._text(each, revision=revision if each == number else 0) for each in range(self.count))
            self._replace("routes.yaml", "---\n".join(texts))
        else:
            self._replace(f"route-{number:04}.yaml", self._text(number, revision=revision))

    def host(self, number: int) -> str:
        return f"team-{number % 50}.example.com"

    def path(self, number: int) -> str:
        return f"/service-{number}"

    def _replace(self, name: str, text: str) -> None:
        draft = self.directory / f".{name}.part"
        draft.write_text(text)
        draft.replace(self.directory / name)

    def _text(self, number: int, *, revision: int) -> str:
        return _ROUTE.format(
            name=f"route-{number}",
            host=self.host(number),
            path=self.path(number),
            header=REVISION_HEADER,
            revision=revision,
            backend=self.backend,
        )
