import base64

from controller.provider.changes import describe
from controller.provider.kubernetes.served import Slot
from controller.provider.kubernetes.store import Difference, Store
from controller.resources.core import ConfigMap, Secret, Service
from controller.resources.gateway_api import HTTPRoute
from tests.provider.kubernetes.fake import Json, route

ROUTES = Slot(HTTPRoute, HTTPRoute.group, "")
PATH = "/apis/gateway.networking.k8s.io/v1/httproutes"


def _at(version: int, document: Json, *, created: str = "2025-01-01T00:00:00Z") -> Json:
    about = {
        "uid": f"uid-{document['metadata']['name']}",
        "resourceVersion": str(version),
        "creationTimestamp": created,
    }
    return {**document, "metadata": {**document["metadata"], **about}}


def _secret(version: int, value: str) -> Json:
    data = {"tls.key": base64.b64encode(value.encode()).decode()}
    return _at(
        version, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "b"}, "data": data}
    )


def test_values_of_secrets_are_in_no_repr_and_no_description() -> None:
    store, slot = Store(), Slot(Secret, "", "")
    key, _ = store.put(slot, _secret(1, "sesame"), path="/api/v1/secrets")
    before = store.snapshot()
    store.put(slot, _secret(2, "cardamom"), path="/api/v1/secrets")
    after = store.snapshot()
    assert describe(before, after) == ("Secret b/a: data changed",)
    shown = repr((store.held(key), after))
    assert not any(word in shown for word in ("cardamom", base64.b64encode(b"cardamom").decode()))


def test_broken_secret_does_not_tell_its_values() -> None:
    store, slot = Store(), Slot(Secret, "", "")
    document = _secret(1, "x")
    document["data"] = {"tls.key": "no-base64-sesame"}
    store.put(slot, document, path="/api/v1/secrets")
    (rejection,) = store.snapshot().rejections
    assert "sesame" not in str(rejection)


def test_oldest_comes_first() -> None:
    store = Store()
    store.put(ROUTES, _at(1, route("new"), created="2025-02-01T00:00:00Z"), path=PATH)
    store.put(ROUTES, _at(2, route("old"), created="2025-01-01T00:00:00Z"), path=PATH)
    assert [item.key.name for item in store.snapshot().resources] == ["old", "new"]


def test_only_what_a_resource_says_is_content() -> None:
    store = Store()
    assert store.put(ROUTES, _at(1, route("one")), path=PATH)[1] is Difference.CONTENT
    assert store.put(ROUTES, _at(2, route("one")), path=PATH)[1] is Difference.NOTHING
    assert store.put(ROUTES, {**_at(3, route("one")), "status": {"parents": []}}, path=PATH)[1] is Difference.STATUS
    assert store.put(ROUTES, _at(4, route("one", path="/b")), path=PATH)[1] is Difference.CONTENT


def test_address_of_a_service_is_content() -> None:
    store, slot = Store(), Slot(Service, "", "")
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "edge", "namespace": "demo"},
        "spec": {"ports": [{"port": 80}]},
    }
    store.put(slot, _at(1, service), path="/api/v1/services")
    status = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}
    _, difference = store.put(slot, {**_at(2, service), "status": status}, path="/api/v1/services")
    assert difference is Difference.CONTENT


def _config_map(version: int) -> Json:
    return _at(version, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "b"}})


def test_object_stays_while_one_of_its_slots_has_it() -> None:
    store = Store()
    labelled, named = Slot(ConfigMap, "", ""), Slot(ConfigMap, "", "b", "ca")
    key, _ = store.put(labelled, _config_map(1), path="/api/v1/configmaps")
    store.put(named, _config_map(1), path="/api/v1/namespaces/b/configmaps")
    assert store.remove(labelled, _config_map(2)) == (key, Difference.NOTHING)
    assert store.held(key) is not None
    assert store.forget(named) == (key,)
    assert store.held(key) is None


def test_list_without_an_object_that_another_slot_has_takes_nothing_away() -> None:
    store = Store()
    labelled, named = Slot(ConfigMap, "", ""), Slot(ConfigMap, "", "b", "ca")
    key, _ = store.put(named, _config_map(1), path="/api/v1/namespaces/b/configmaps")
    store.put(labelled, _config_map(1), path="/api/v1/configmaps")
    assert store.retain(labelled, ()) == ()
    assert store.remove(named, _config_map(2)) == (key, Difference.CONTENT)
