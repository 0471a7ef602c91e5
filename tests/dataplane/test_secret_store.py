"""The authority's Secret, with an API server in memory."""

import base64
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.dataplane.pki import Authority, make_ca
from controller.dataplane.secret_store import SecretStore
from controller.errors import ApiConflict, ApiDenied, ApiError, ApiMissing

Json = dict[str, Any]  # any: objects in Kubernetes' shape

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_COLLECTION = "/api/v1/namespaces/infergate-system/secrets"


@dataclass
class _Api:
    """One Secret."""

    kept: Json | None = None
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda method: None
    """Called before each call is answered, with its method."""

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json:
        self.calls.append(method)
        self.before(method)
        assert path == (_COLLECTION if method == "POST" else f"{_COLLECTION}/infergate-ca")
        if method == "POST" and self.kept is not None:
            raise ApiConflict(409, "AlreadyExists", "there is one")
        if method != "POST" and self.kept is None:
            raise ApiMissing(404, "NotFound", "there is none")
        if body is not None:
            version = self.kept["metadata"]["resourceVersion"] if self.kept else "0"
            if method == "PUT" and body["metadata"]["resourceVersion"] != version:
                raise ApiConflict(409, "Conflict", "it was changed")
            self.kept = copy.deepcopy(body)
            self.kept["metadata"]["resourceVersion"] = str(int(version) + 1)
        assert self.kept is not None
        return copy.deepcopy(self.kept)


def _store(api: _Api) -> SecretStore:
    return SecretStore(api, "infergate-system", "infergate-ca")


def _authority() -> Authority:
    return Authority(make_ca(now=_NOW))


async def test_there_is_none_at_first() -> None:
    assert await _store(_Api()).load() is None


async def test_what_is_kept_is_loaded() -> None:
    api, authority = _Api(), replace(_authority(), next=make_ca(now=_NOW), retired=(b"a", b"b"))
    assert await _store(api).replace(None, authority) == authority
    assert await _store(api).load() == authority
    assert api.kept is not None
    assert base64.b64decode(api.kept["data"]["ca.crt"]) == authority.trusted


async def test_second_of_two_takes_what_the_first_created() -> None:
    api, ours, theirs = _Api(), _authority(), _authority()
    await _store(api).replace(None, theirs)
    created, api.kept = api.kept, None

    def meanwhile(method: str) -> None:
        if method == "POST":
            api.kept = created

    api.before = meanwhile
    assert await _store(api).replace(None, ours) == theirs
    assert await _store(api).load() == theirs


async def test_change_by_another_between_reading_and_writing_wins() -> None:
    api, before, ours, theirs = _Api(), _authority(), _authority(), _authority()
    await _store(api).replace(None, before)
    others = iter([theirs])

    def meanwhile(method: str) -> None:
        if method == "PUT" and api.kept is not None and (other := next(others, None)):
            changed = _Api(copy.deepcopy(api.kept))
            changed.kept["data"] = _store(changed)._secret(other)["data"]  # type: ignore[index]  # it is not None
            changed.kept["metadata"]["resourceVersion"] = "7"  # type: ignore[index]  # as above
            api.kept = changed.kept

    api.before = meanwhile
    assert await _store(api).replace(before, ours) == theirs


async def test_authority_that_is_still_kept_is_replaced() -> None:
    api, before, after = _Api(), _authority(), _authority()
    await _store(api).replace(None, before)
    assert await _store(api).replace(before, after) == after
    assert await _store(api).load() == after
    assert await _store(api).replace(before, _authority()) == after


async def test_deleted_secret_is_made_again() -> None:
    api, before, after = _Api(), _authority(), _authority()
    await _store(api).replace(None, before)
    api.kept = None
    assert await _store(api).replace(before, after) == after


async def test_labels_of_others_stay() -> None:
    api, before = _Api(), _authority()
    await _store(api).replace(None, before)
    assert api.kept is not None
    api.kept["metadata"]["labels"]["team"] = "edge"
    await _store(api).replace(before, _authority())
    assert api.kept["metadata"]["labels"]["team"] == "edge"
    assert api.kept["metadata"]["labels"]["app.kubernetes.io/name"] == "infergate"


@pytest.mark.parametrize("data", [None, {}, {"authority.json": "!"}, {"authority.json": "e30="}])
async def test_secret_with_something_else_is_named_and_left_alone(data: Json | None) -> None:
    api = _Api({"metadata": {"resourceVersion": "1"}, "data": data})
    for attempt in (_store(api).load(), _store(api).replace(None, _authority())):
        with pytest.raises(ApiError, match="Secret infergate-system/infergate-ca"):
            await attempt
    assert set(api.calls) == {"GET"}


async def test_refusal_of_the_api_server_is_passed_on() -> None:
    def deny(method: str) -> None:
        if method == "POST":
            raise ApiDenied(403, "Forbidden", "no")

    with pytest.raises(ApiDenied):
        await _store(_Api(before=deny)).replace(None, _authority())
    with pytest.raises(ApiError, match="changed 4 times"):
        await _store(_Api(before=_conflict)).replace(None, _authority())


def _conflict(method: str) -> None:
    if method == "POST":
        raise ApiConflict(409, "AlreadyExists", "there is one")
