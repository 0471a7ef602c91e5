"""ConfigMaps that other resources refer to: they are read by their names, and all others are left alone."""

from collections.abc import Iterable, Iterator
from typing import Final

from controller.resources.backend_tls import BackendTLSPolicy
from controller.resources.core import ConfigMap
from controller.resources.gateway_api import Gateway
from controller.resources.meta import Resource

REFERRERS: Final[tuple[type[Resource], ...]] = (BackendTLSPolicy, Gateway)
"""Kinds that may refer to one."""

Name = tuple[str, str]
"""(namespace, name)."""


def config_maps(resources: Iterable[Resource]) -> frozenset[Name]:
    """ConfigMaps that resources of these kinds take certificate authorities from."""
    return frozenset(name for item in resources for name in _authorities(item))


def _authorities(item: Resource) -> Iterator[Name]:
    if isinstance(item, BackendTLSPolicy):
        for reference in item.spec.validation.ca_certificate_refs:
            if (reference.group, reference.kind) == (ConfigMap.group, "ConfigMap"):
                yield item.metadata.namespace, reference.name
    elif isinstance(item, Gateway) and item.spec.tls and item.spec.tls.frontend:
        frontend = item.spec.tls.frontend
        for tls in (frontend.default, *(port.tls for port in frontend.per_port)):
            for cross in tls.validation.ca_certificate_refs if tls.validation else ():
                if (cross.group, cross.kind) == (ConfigMap.group, "ConfigMap"):
                    yield cross.namespace or item.metadata.namespace, cross.name
