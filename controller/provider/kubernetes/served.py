"""Which kinds the API server serves, of those that are read, and where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.kube import Api, Json
from controller.resources.adapters import LABEL
from controller.resources.core import ConfigMap, Pod, Secret
from controller.resources.kinds import MODELS
from controller.resources.meta import Resource

WATCHED: Final = MODELS
"""Kinds that are read from a cluster."""

_SELECTORS: Final[Mapping[type[Resource], Mapping[str, str]]] = {
    Secret: {"fieldSelector": "type=kubernetes.io/tls"},
    Pod: {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"},
    ConfigMap: {"labelSelector": f"{LABEL}=true"},
}
"""Other Secrets are never asked for, and pods that are over serve nothing. Of ConfigMaps, clusters hold many and large
ones, some of which change every other second; only those that name adapters are read, and by their own names those that
are referred to."""

_ACCEPT: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
)
_ALWAYS: Final = ("", "discovery.k8s.io")
"""Groups of Kubernetes itself, which are not looked for."""


@dataclass(frozen=True)
class Slot:
    """What one list and one watch fill."""

    model: type[Resource]
    group: str
    namespace: str
    """Empty for all namespaces, and for cluster-scoped kinds."""
    name: str = ""
    """Of the one object that is asked for; empty for all."""

    def __str__(self) -> str:
        kind = self.model.kind_name()
        name = f"{kind}.{self.group}" if self.group else kind
        if self.name:
            return f"{name} {self.namespace}/{self.name}"
        return f"{name} in {self.namespace}" if self.namespace else name

    @property
    def query(self) -> dict[str, str | int]:
        if self.name:
            return {"fieldSelector": f"metadata.name={self.name}"}
        return dict(_SELECTORS.get(self.model, {}))


def config_map_slot(name: tuple[str, str]) -> tuple[Slot, str]:
    """The slot of one ConfigMap, and the path of its list."""
    namespace, own = name
    return Slot(ConfigMap, ConfigMap.group, namespace, own), f"/api/v1/namespaces/{namespace}/configmaps"


class Discovery:
    """Asks what is served, again and again, at the cost of an answer without content while nothing changes."""

    def __init__(self, api: Api, *, models: Sequence[type[Resource]], namespaces: Sequence[str]) -> None:
        self._api = api
        self._models = models
        self._namespaces = namespaces
        self._etag = ""
        self._groups: Mapping[str, Json] = {}
        self._last: dict[Slot, str] = {}

    async def look(self) -> dict[Slot, str]:
        """Path of each slot's list. What vanished is there until it is missing twice in a row."""
        found = await self._api.fetch("/apis", accept=_ACCEPT, etag=self._etag)
        if found is not None:
            listed, self._etag = found
            self._groups = {item["metadata"]["name"]: item for item in listed.get("items") or ()}
        served = dict(self._slots())
        both = {**self._last, **served} if found is not None else served
        self._last = served
        return both

    def _slots(self) -> Iterable[tuple[Slot, str]]:
        for model in self._models:
            for group in (model.group, *model.former_groups):
                place = self._place(model, group)
                if place is None:
                    continue
                prefix, plural = place
                if model.cluster_scoped or not self._namespaces:
                    yield Slot(model, group, ""), f"{prefix}/{plural}"
                    continue
                for namespace in self._namespaces:
                    yield Slot(model, group, namespace), f"{prefix}/namespaces/{namespace}/{plural}"

    def _place(self, model: type[Resource], group: str) -> tuple[str, str] | None:
        """(`/apis/GROUP/VERSION`, plural) of the preferred version that is served."""
        if group in _ALWAYS:
            prefix = f"/apis/{group}" if group else "/api"
            return f"{prefix}/{model.versions[0]}", f"{model.kind_name().lower()}s"
        served = {item["version"]: item for item in self._groups.get(group, {}).get("versions") or ()}
        for version in model.versions:
            for resource in served.get(version, {}).get("resources") or ():
                if (resource.get("responseKind") or {}).get("kind") == model.kind_name():
                    return f"/apis/{group}/{version}", resource["resource"]
        return None
