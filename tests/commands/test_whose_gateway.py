"""Which Gateway's bundle an instance is given."""

import pytest

from controller.commands.controller import _is_theirs
from controller.dataplane.manifests import name_of
from controller.dataplane.tokens import Identity
from controller.resources.meta import Key

_DOTTED = Key("gateway.networking.k8s.io", "Gateway", "shop", "a.b")


@pytest.mark.parametrize(
    ("gateway", "is_theirs"),
    [("shop/a.b", True), ("bank/a.b", False), ("shop/a", False), ("shop", False), ("shop/", False)],
)
def test_instance_is_given_its_own_gateway(gateway: str, is_theirs: bool) -> None:
    identity = Identity("shop", name_of(_DOTTED), "pod", "uid", gateway="a.b")
    assert _is_theirs(gateway, identity) is is_theirs


def test_gateway_whose_objects_would_have_the_same_name_is_another_one() -> None:
    name = name_of(_DOTTED)
    other = Key(_DOTTED.group, _DOTTED.kind, "shop", name.removeprefix("infergate-"))
    assert name_of(other) == name
    identity = Identity("shop", name, "pod", "uid", gateway="a.b")
    assert not _is_theirs(other.path, identity)


def test_account_that_no_gateway_owns_is_given_nothing() -> None:
    assert not _is_theirs("shop/edge", Identity("shop", "infergate-edge", "pod", "uid", gateway=""))
