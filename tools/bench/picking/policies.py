"""The ways to choose a pod that are compared, and the resources that ask for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tools.bench.resources import PICKED_HOST, SERVICE_HOST, write_gateway, write_pool


class Policy(StrEnum):
    DEFAULT = "default"
    """A pool without a PickerPolicy."""
    ROUND_ROBIN = "round-robin"
    """A Service instead of a pool: NGINX takes its endpoints in turns."""
    LEAST_IN_FLIGHT = "least-in-flight"
    PREFIX_AFFINITY = "prefix-affinity"
    """Nothing but the longest match."""
    REFERENCE = "reference"
    """The scorers that the endpoint picker of the inference extension has by default."""


@dataclass(frozen=True)
class _Profile:
    scorers: Mapping[str, int]
    """Weights."""
    more: str = ""
    """What else its PickerPolicy says."""


_PROFILES: Final = {
    Policy.LEAST_IN_FLIGHT: _Profile({"active-request-scorer": 1}),
    Policy.PREFIX_AFFINITY: _Profile({"prefix-cache-scorer": 1}),
    # Source: llm-d-router, pkg/epp/config/loader. It reads metrics every 50 ms, and two of these scorers see nothing
    # else of the load.
    Policy.REFERENCE: _Profile(
        {"queue-scorer": 2, "kv-cache-utilization-scorer": 2, "prefix-cache-scorer": 3},
        more="  health: {scrapeInterval: 50ms}\n",
    ),
}

_POLICY: Final = """\
apiVersion: infergate.dev/v1alpha1
kind: PickerPolicy
metadata: {{name: llm}}
spec:
  targetRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: llm}}]
{more}  config:
    plugins:
{plugins}
    schedulingProfiles:
    - name: default
      plugins:
{references}
"""
_PICKER: Final = "max-score-picker"


def write_resources(directory: Path, policy: Policy, *, port: int, pods: Sequence[int]) -> str:
    """A gateway on a port whose pods listen on others. Returns the host that requests must be for."""
    write_gateway(directory, port=port)
    write_pool(directory, backends=pods)
    profile = _PROFILES.get(policy)
    if profile is not None:
        (directory / "policy.yaml").write_text(_policy(profile))
    return SERVICE_HOST if policy is Policy.ROUND_ROBIN else PICKED_HOST


def scorers_of(policy: Policy) -> tuple[str, ...]:
    """Those that the picker must have, by name; none where the pool has no PickerPolicy."""
    profile = _PROFILES.get(policy)
    return tuple(profile.scorers) if profile else ()


def _policy(profile: _Profile) -> str:
    names = (*profile.scorers, _PICKER)
    references = [f"      - {{pluginRef: {name}, weight: {weight}}}" for name, weight in profile.scorers.items()]
    return _POLICY.format(
        more=profile.more,
        plugins="\n".join(f"    - {{type: {name}}}" for name in names),
        references="\n".join([*references, f"      - {{pluginRef: {_PICKER}}}"]),
    )
