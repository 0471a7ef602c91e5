"""Who asks: the identity behind a projected ServiceAccount token, as the API server reviews it, and its Gateway."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from controller.errors import ApiDenied, ApiMissing
from controller.resources.gateway_api import Gateway
from controller.wire import AUDIENCE

Json = dict[str, Any]  # an object in Kubernetes' shape

_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"

_KNOWN_FOR: Final = 60.0
"""Seconds for which a review is believed. Each token costs the API server two questions a minute."""
_DENIED_FOR: Final = 10.0
"""As above, for a token that was denied: one that is not valid yet soon is."""
_MOST: Final = 4096
"""Reviews that are remembered; the oldest go first."""


@dataclass(frozen=True)
class Identity:
    """A pod that holds a valid token."""

    namespace: str
    service_account: str
    pod: str
    uid: str
    """Of the pod."""
    gateway: str
    """Name of the Gateway that owns the ServiceAccount, in the same namespace; empty where none does."""


@dataclass(frozen=True)
class Denied:
    """A token that says nothing about who asks."""

    reason: str


class ApiClient(Protocol):
    """As much of an API server's client as a review needs."""

    async def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """The object in the answer. Raises one of our exceptions when there is none, ApiMissing for no such object."""
        ...


@dataclass
class TokenReviews:
    """Asks the API server whose a token is, and remembers the answer for a while under the token's digest."""

    api: ApiClient
    audience: str = AUDIENCE
    clock: Callable[[], float] = time.monotonic
    _known: dict[bytes, tuple[float, Identity | Denied]] = field(default_factory=dict, init=False, repr=False)
    """Until when each is believed."""
    _asking: dict[bytes, asyncio.Task[Identity | Denied]] = field(default_factory=dict, init=False, repr=False)

    async def review(self, token: str) -> Identity | Denied:
        """Whose a token is. Raises what the client raises."""
        digest = hashlib.sha256(token.encode()).digest()
        until, known = self._known.get(digest, (0.0, None))
        if known is not None and self.clock() < until:
            return known
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.create_task(self._ask(token))
            asking.add_done_callback(lambda done: self._take(digest, done))
        # One that hangs up does not take the answer from the others that wait for it.
        return await asyncio.shield(asking)

    async def _ask(self, token: str) -> Identity | Denied:
        review: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.audience]},
        }
        answer = await self.api.request("POST", _REVIEWS, review)
        found = identity_of(answer, audience=self.audience)
        if isinstance(found, Denied):
            return found
        path = f"/api/v1/namespaces/{found.namespace}/serviceaccounts/{found.service_account}"
        try:
            account = await self.api.request("GET", path)
        except (ApiDenied, ApiMissing):  # of a namespace that is not watched, the control plane may read none
            return Denied("the token's ServiceAccount cannot be read")
        return replace(found, gateway=gateway_of(account))

    def _take(self, digest: bytes, done: asyncio.Task[Identity | Denied]) -> None:
        del self._asking[digest]
        if done.cancelled() or done.exception() is not None:
            return
        found = done.result()
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known.pop(digest, None)
        self._known[digest] = (self.clock() + (_KNOWN_FOR if isinstance(found, Identity) else _DENIED_FOR), found)


def identity_of(review: Mapping[str, object], *, audience: str) -> Identity | Denied:
    """What an answered TokenReview says, which names no Gateway.

    Source: Kubernetes, authentication.k8s.io/v1 TokenReviewStatus.
    """
    status = _mapping(review.get("status"))
    if status.get("authenticated") is not True:
        return Denied("the token is not valid")
    # An API server that does not know audiences answers without them, and would take a token for anything.
    if audience not in _strings(status.get("audiences")):
        return Denied("the token is for another audience")
    user = _mapping(status.get("user"))
    kind, _, name = str(user.get("username", "")).rpartition("system:serviceaccount:")
    namespace, _, account = name.partition(":")
    extra = _mapping(user.get("extra"))
    pods, uids = _strings(extra.get(_POD_NAME)), _strings(extra.get(_POD_UID))
    if kind or not namespace or not account or not pods or not uids:
        return Denied("the token is not bound to a pod of a ServiceAccount")
    return Identity(namespace, account, pods[0], uids[0], gateway="")


def gateway_of(account: Mapping[str, object]) -> str:
    """Name of the Gateway that owns a ServiceAccount; empty where none does.

    The account's own name does not tell: those of two Gateways may be alike, one of them with a digest.
    """
    owners = _mapping(account.get("metadata")).get("ownerReferences")
    for owner in map(_mapping, owners if isinstance(owners, list | tuple) else ()):
        group = str(owner.get("apiVersion", "")).partition("/")[0]
        if owner.get("controller") is True and (group, owner.get("kind")) == (Gateway.group, Gateway.__name__):
            return str(owner.get("name", ""))
    return ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> Sequence[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
