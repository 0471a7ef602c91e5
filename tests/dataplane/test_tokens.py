import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.dataplane.tokens import Denied, Identity, Json, TokenReviews
from controller.errors import ApiDenied, ApiError, ApiMissing, InfergateError
from controller.wire import AUDIENCE

_POD = {
    "authentication.kubernetes.io/pod-name": ["edge-0"],
    "authentication.kubernetes.io/pod-uid": ["1234"],
}
_USER = {"username": "system:serviceaccount:shop:infergate-edge", "extra": _POD}
_STATUS = {"authenticated": True, "audiences": [AUDIENCE], "user": _USER}
_KNOWN = Identity("shop", "infergate-edge", "edge-0", "1234", "edge")


_GATEWAY = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "edge", "controller": True}


class _Api:
    def __init__(self, status: Mapping[str, Any], *owners: Mapping[str, Any]) -> None:  # Any: JSON
        self.status = status
        self.owners = owners or (_GATEWAY,)
        self.trouble: ApiError | None = None
        """With the ServiceAccount."""
        self.asked: list[Mapping[str, Any]] = []
        self.is_down = False

    async def request(self, method: str, path: str, body: Json | None = None) -> Json:
        if method == "GET":
            assert path == "/api/v1/namespaces/shop/serviceaccounts/infergate-edge"
            if self.trouble is not None:
                raise self.trouble
            return {"metadata": {"ownerReferences": list(self.owners)}}
        assert body is not None
        assert (method, path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        self.asked.append(body)
        await asyncio.sleep(0)
        if self.is_down:
            raise InfergateError("down")
        return {"status": self.status}


async def test_token_has_the_identity_of_its_pod() -> None:
    api = _Api(_STATUS)
    assert await TokenReviews(api).review("token") == _KNOWN
    assert api.asked[0]["spec"] == {"token": "token", "audiences": [AUDIENCE]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, "not valid"),
        ({"authenticated": False, "error": "expired"}, "not valid"),
        ({**_STATUS, "authenticated": "yes"}, "not valid"),
        ({**_STATUS, "audiences": []}, "another audience"),
        ({**_STATUS, "audiences": ["https://kubernetes.default.svc"]}, "another audience"),
        ({**_STATUS, "user": {**_USER, "username": "alice"}}, "not bound to a pod"),
        ({**_STATUS, "user": {**_USER, "username": "x:system:serviceaccount:shop:edge"}}, "not bound to a pod"),
        ({**_STATUS, "user": {"username": _USER["username"]}}, "not bound to a pod"),
        ({**_STATUS, "user": {**_USER, "extra": {"authentication.kubernetes.io/pod-name": []}}}, "not bound to a pod"),
    ],
)
async def test_token_is_denied(status: dict[str, Any], reason: str) -> None:  # Any: JSON
    found = await TokenReviews(_Api(status)).review("token")
    assert isinstance(found, Denied)
    assert reason in found.reason


@pytest.mark.parametrize(
    "owner",
    [
        {**_GATEWAY, "controller": False},
        {**_GATEWAY, "apiVersion": "example.com/v1"},
        {**_GATEWAY, "kind": "GatewayClass"},
        {},
    ],
)
async def test_account_of_something_else_has_no_gateway(owner: dict[str, Any]) -> None:  # Any: JSON
    assert await TokenReviews(_Api(_STATUS, owner)).review("token") == replace(_KNOWN, gateway="")


@pytest.mark.parametrize("trouble", [ApiMissing(404, "NotFound", "gone"), ApiDenied(403, "Forbidden", "no")])
async def test_token_of_an_account_that_cannot_be_read_is_denied(trouble: ApiError) -> None:
    api = _Api(_STATUS)
    api.trouble = trouble
    assert await TokenReviews(api).review("token") == Denied("the token's ServiceAccount cannot be read")


async def test_review_is_believed_for_a_minute() -> None:
    now, api = [0.0], _Api(_STATUS)
    reviews = TokenReviews(api, clock=lambda: now[0])
    for now[0], questions in ((0.0, 1), (59.0, 1), (61.0, 2)):
        assert await reviews.review("token") == _KNOWN
        assert len(api.asked) == questions


async def test_same_token_at_once_is_one_question() -> None:
    api = _Api(_STATUS)
    reviews = TokenReviews(api)
    assert set(await asyncio.gather(*(reviews.review("token") for _ in range(9)))) == {_KNOWN}
    assert len(api.asked) == 1


async def test_failure_is_not_remembered() -> None:
    api = _Api(_STATUS)
    reviews = TokenReviews(api)
    api.is_down = True
    with pytest.raises(InfergateError):
        await reviews.review("token")
    api.is_down = False
    assert await reviews.review("token") == _KNOWN


async def test_what_is_remembered_is_bounded_and_holds_no_token() -> None:
    reviews = TokenReviews(_Api(_STATUS))
    for number in range(5000):
        await reviews.review(f"token-{number}")
    assert len(reviews._known) == 4096
    assert "token-4999" not in repr(vars(reviews))
