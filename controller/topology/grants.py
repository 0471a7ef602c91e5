"""References from one namespace into another, which the other one has to grant."""

from collections.abc import Iterable

from controller.resources.gateway_api import ReferenceGrant
from controller.resources.meta import Key

Grants = frozenset[tuple[str, str, str, str, str, str, str]]
"""(group, kind and namespace of the referrer; group, kind, namespace and name of the target, empty for any name)."""


def grants_of(resources: Iterable[ReferenceGrant]) -> Grants:
    return frozenset(
        (source.group, source.kind, source.namespace, to.group, to.kind, grant.metadata.namespace, to.name or "")
        for grant in resources
        for source in grant.spec.from_
        for to in grant.spec.to
    )


def permits(grants: Grants, *, source: Key, target: Key) -> bool:
    """Whether `source` may refer to `target`: in its own namespace always, elsewhere with a grant.

    Source: Gateway API, ReferenceGrant.
    """
    if source.namespace == target.namespace:
        return True
    granted = (source.group, source.kind, source.namespace, target.group, target.kind, target.namespace)
    return (*granted, "") in grants or (*granted, target.name) in grants
