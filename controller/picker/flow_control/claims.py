"""What the headers of a request claim: its priority, its tenant and its deadline, as far as the configuration lets it.

A client's word never counts by itself: an objective must be one of the pool's, the route may set or cap the priority,
and fairness id and deadline count only where the pool trusts its clients. NGINX always sets or removes the
`x-infergate-` headers, so what is read here is the route's.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from controller.headers import PRIORITY_HEADERS
from controller.picker.flow_control.settings import PoolPolicy, TenantBy
from controller.picker.flow_control.tickets import Ticket

PRIORITY_HEADER, PRIORITY_CAP_HEADER, PRIORITY_DEFAULT_HEADER = PRIORITY_HEADERS
"""The priority that a route gives all its requests, the highest that an objective gives there, and that of requests
without an objective."""
OBJECTIVE_HEADERS: Final = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
"""From the client: the name of an InferenceObjective; the second is the older name."""
FAIRNESS_HEADERS: Final = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
"""From the client: its tenant; as above."""
TTFT_HEADERS: Final = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
"""From the client: milliseconds in which it wants the first token; as above."""

_SET: Final = PRIORITY_HEADER.encode()
_CAP: Final = PRIORITY_CAP_HEADER.encode()
_DEFAULT: Final = PRIORITY_DEFAULT_HEADER.encode()
_OBJECTIVE, _OLD_OBJECTIVE = (name.encode() for name in OBJECTIVE_HEADERS)
_FAIRNESS, _OLD_FAIRNESS = (name.encode() for name in FAIRNESS_HEADERS)
_TTFT, _OLD_TTFT = (name.encode() for name in TTFT_HEADERS)
_LONGEST_ID: Final = 256
"""Bytes of a fairness id that count."""
_INT32: Final = 2**31

Headers = Mapping[bytes, bytes]
"""Names in lower case."""


def ticket_of(
    headers: Headers, policy: PoolPolicy, *, request: str, pool: str, priority: int, size: int, tokens: int = 0
) -> Ticket:
    """The ticket of a request of a priority, as `priority_of` tells it."""
    return Ticket(
        id=request,
        pool=pool,
        priority=priority,
        size=size,
        tokens=tokens,
        claimant=claimant_of(headers, policy),
        due=due_of(headers) if policy.trust_deadline else None,
    )


def priority_of(headers: Headers, policy: PoolPolicy, *, model: str = "") -> int:
    """The priority: the route's, else the objective's up to the route's cap, else the model's, else a default."""
    if _SET in headers:
        fixed = _whole(headers[_SET])
        if fixed is not None:
            return fixed
    name = headers.get(_OBJECTIVE) or headers.get(_OLD_OBJECTIVE)
    claimed = policy.objectives.get(name.decode("latin-1")) if name else None
    if claimed is None and model in policy.models:
        return policy.models[model]
    if claimed is None:
        default = _whole(headers[_DEFAULT]) if _DEFAULT in headers else None
        return policy.default_priority if default is None else default
    cap = _whole(headers[_CAP]) if _CAP in headers else None
    return claimed if cap is None else min(claimed, cap)


def claimant_of(headers: Headers, policy: PoolPolicy) -> bytes:
    """What tells the tenant from others, marked by its kind so that no kind can pass for another."""
    if policy.trust_fairness_id:
        claimed = headers.get(_FAIRNESS) or headers.get(_OLD_FAIRNESS)
        if claimed:
            return b"i" + claimed[:_LONGEST_ID]
    if policy.tenant_by is TenantBy.CREDENTIAL:
        credential = headers.get(b"authorization") or headers.get(b"x-api-key")
        if credential:
            return b"c" + credential
    # nginx appends the address it saw; what stands before it is the client's word.
    forwarded = headers.get(b"x-forwarded-for")
    return b"a" + (forwarded.rpartition(b",")[2].strip() if forwarded else headers.get(b"x-real-ip", b""))


def due_of(headers: Headers) -> float | None:
    """Seconds in which the client wants the first token; None without a header that can be read."""
    text = headers.get(_TTFT) or headers.get(_OLD_TTFT)
    if not text:
        return None
    try:
        milliseconds = float(text)
    except ValueError:
        return None
    return milliseconds / 1000 if 0 < milliseconds < 1e9 else None


class Tenants:
    """Names of tenants that give nothing away: a keyed hash, with a key that lives as long as the process."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "Tenants()"

    def name(self, claimant: bytes) -> str:
        """16 hexadecimal digits."""
        return hashlib.blake2b(claimant, digest_size=8, key=self._key).hexdigest()


def _whole(text: bytes) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -_INT32 <= number < _INT32 else None
