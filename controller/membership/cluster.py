"""The endpoints of one pool from an API server, with what PickerPolicies and the like say of it.

An InferencePool names its pods, or labels and ports that are given instead do. A pool that does not exist has no
endpoints: it may come.
"""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from controller.errors import SettingInvalid
from controller.kube import Api, configuration
from controller.plugins.catalogue import Catalogue
from controller.pools import Pool, Pools, pools_of
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.resources.core import EndpointSlice, Pod
from controller.resources.inference import InferencePool, InferencePoolSpec, PoolPort, PoolSelector
from controller.resources.legacy import InferenceModel
from controller.resources.meta import Metadata, Resource
from controller.resources.policies import InferenceObjective, PickerPolicy
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.snapshot import Snapshot
from controller.topology.index import Index, index_of
from controller.topology.policies.models import models_of
from controller.topology.policies.objectives import objectives_of
from controller.topology.policies.picker_policy import applied_policy, policies_of
from controller.topology.policies.rewrites import rewrites_of
from controller.topology.pools import pool_of

log = logging.getLogger(__name__)

GROUP: Final = InferencePool.group
_OF_A_POOL: Final[tuple[type[Resource], ...]] = (
    *(InferencePool, InferenceObjective, InferenceModel, InferenceModelRewrite, PickerPolicy),
    *(Pod, EndpointSlice),
)


@dataclass(frozen=True)
class Wanted:
    """Which pool."""

    namespace: str
    name: str
    selector: Mapping[str, str] | None = None
    """Labels of its pods; None: those of the InferencePool."""
    ports: Sequence[int] = ()
    """On which its pods serve; with a selector."""


async def follow(wanted: Wanted, *, kubeconfig: Path | None, catalogue: Catalogue) -> AsyncGenerator[Pools, None]:
    """The pool, each time it is another one. The first comes when everything was listed.

    Waits for an API server that is away; what was read stays while it is. Raises SettingInvalid when nothing says where
    it is.
    """
    models = _OF_A_POOL if wanted.selector is None else (Pod,)
    async with Api(await configuration(kubeconfig)) as api:
        provider = KubernetesProvider(api, namespaces=(wanted.namespace,), models=models)
        last = ""
        async with aclosing(provider.snapshots()) as snapshots:
            async for snapshot, _ in snapshots:
                pools = pools_of((pool_in(snapshot, wanted, catalogue=catalogue),))
                if pools.etag != last:
                    last = pools.etag
                    yield pools


def pool_in(snapshot: Snapshot, wanted: Wanted, *, catalogue: Catalogue) -> Pool:
    """The pool as these resources have it."""
    index = index_of(snapshot)
    if wanted.selector is not None:
        return pool_of(_made(wanted), index=index)
    name = (wanted.namespace, wanted.name)
    item = index.pools.get(name)
    if item is None:
        log.warning("InferencePool does not exist", extra={"pool": "/".join(name)})
        return Pool(name="/".join(name))
    return _with_policy(item, index, catalogue=catalogue)


def check(wanted: Wanted, *, group: str) -> None:
    """Raises SettingInvalid when no such pool can be followed."""
    if group != GROUP:
        raise SettingInvalid(f"--pool-group: found {group}, accepted is {GROUP}")
    if wanted.selector is None:
        return
    try:
        _made(wanted)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise SettingInvalid(f"--endpoint-selector: {first['input']!r}: {first['msg']}") from problem


def _with_policy(item: InferencePool, index: Index, *, catalogue: Catalogue) -> Pool:
    name = (item.metadata.namespace, item.metadata.name)
    granted = policies_of(index, catalogue=catalogue).applied.get(name)
    objectives = objectives_of(index).priorities.get(name, {})
    models = models_of(index, rewrites=rewrites_of(index).of_pools)
    policy = applied_policy(granted, objectives=objectives, models=models.priorities.get(name, {}))
    return pool_of(item, index=index, policy=policy, rewrites=models.rewrites.get(name, ()))


def _made(wanted: Wanted) -> InferencePool:
    assert wanted.selector is not None  # called for those alone
    return InferencePool(
        api_version=f"{GROUP}/{InferencePool.versions[0]}",
        kind=InferencePool.__name__,
        metadata=Metadata(name=wanted.name, namespace=wanted.namespace),
        spec=InferencePoolSpec(
            selector=PoolSelector(match_labels=dict(wanted.selector)),
            target_ports=tuple(PoolPort(number=port) for port in wanted.ports),
        ),
    )
