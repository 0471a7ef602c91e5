"""Objects of data planes in a cluster, against an API server that keeps what it is given."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from controller.dataplane.provision import Provisioner
from controller.errors import ApiBusy, ApiMissing, ApiRefused, ApiUnreachable
from controller.resources.meta import Key

Json = dict[str, Any]  # any: objects in Kubernetes' shape

WEB = Key("gateway.networking.k8s.io", "Gateway", "shop", "web")
SERVICE = "/api/v1/namespaces/shop/services/infergate-web"
DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/infergate-web"
BUDGET = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/infergate-web"
SCALER = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/infergate-web"


class ApiServer:
    """Keeps the newest form of each object, and counts writes."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.writes: list[tuple[str, str, str]] = []
        """(method, path, field manager)."""
        self.refused: dict[str, str] = {}
        """By path: message of the refusal of each write."""
        self.busy: dict[str, list[ApiBusy]] = {}
        """By path: what the next writes of it are refused with."""
        self.is_gone = False

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json:
        if self.is_gone:
            raise ApiUnreachable("gone")
        if method == "GET":
            if path not in self.objects:
                raise ApiMissing(404, "NotFound", "not found")
            return copy.deepcopy(self.objects[path])
        self.writes.append((method, path, str((query or {}).get("fieldManager", ""))))
        if self.busy.get(path):
            raise self.busy[path].pop(0)
        if path in self.refused:
            raise ApiRefused(422, "Invalid", self.refused[path])
        if method == "DELETE":
            return self.objects.pop(path)
        assert body is not None
        return copy.deepcopy(self._applied(path, body, manager=str((query or {})["fieldManager"])))

    def touch(self, path: str) -> None:
        """Changes an object as somebody else would."""
        metadata = self.objects[path]["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)

    def _applied(self, path: str, body: Json, *, manager: str) -> Json:
        known = self.objects.get(path, {"metadata": {"resourceVersion": "0", "uid": f"uid of {path}"}})
        fields: Json = {"f:spec": {f"f:{name}": {} for name in body.get("spec", {})}}
        managed = {"managedFields": [{"manager": manager, "fieldsV1": fields}]}
        metadata = {**known["metadata"], **body["metadata"], **managed}
        found = {**known, **body, "metadata": metadata, "spec": {**known.get("spec", {}), **body.get("spec", {})}}
        if found != known:
            self.objects[path] = copy.deepcopy(found)
            self.touch(path)
        return self.objects[path]


def _item(kind: str, *, uid: str = "u-1", **spec: Any) -> Json:  # any: fields of a spec
    owner = {"kind": "Gateway", "name": "web", "uid": uid, "controller": True}
    metadata = {"name": "infergate-web", "namespace": "shop", "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}


BASIC = (_item("Service", type="ClusterIP"), _item("PodDisruptionBudget"), _item("Deployment", replicas=2))
SCALED = (_item("Service", type="ClusterIP"), _item("Deployment"), _item("HorizontalPodAutoscaler", maxReplicas=5))


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


async def test_objects_are_applied_in_order_by_our_field_manager(server: ApiServer) -> None:
    found = await Provisioner(server).provision(WEB, BASIC)

    assert server.writes == [("PATCH", path, "infergate") for path in (SERVICE, BUDGET, DEPLOYMENT)]
    assert found.changed == ("Service", "PodDisruptionBudget", "Deployment")
    assert found.service is not None
    assert found.service["spec"]["type"] == "ClusterIP"
    assert found.problems == ()


async def test_nothing_is_written_when_nothing_changed(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, BASIC)
    server.writes.clear()

    found = await provisioner.provision(WEB, BASIC)

    assert (server.writes, found.changed) == ([], ())
    assert found.service is not None


async def test_only_what_was_touched_is_written_again(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, BASIC)
    server.writes.clear()
    server.touch(DEPLOYMENT)
    del server.objects[BUDGET]

    await provisioner.provision(WEB, BASIC)

    assert [path for _, path, _ in server.writes] == [BUDGET, DEPLOYMENT]


async def test_another_control_plane_changes_nothing(server: ApiServer) -> None:
    await Provisioner(server).provision(WEB, BASIC)
    before = copy.deepcopy(server.objects)

    found = await Provisioner(server).provision(WEB, BASIC)

    assert server.objects == before
    assert found.changed == ()


async def test_what_is_no_longer_needed_is_deleted(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, SCALED)
    await provisioner.provision(WEB, (*BASIC[:1], *BASIC[2:]))

    assert sorted(server.objects) == sorted([SERVICE, DEPLOYMENT])


async def test_foreign_object_of_a_dispensable_kind_is_left_alone(server: ApiServer) -> None:
    server.objects[SCALER] = {"metadata": {"resourceVersion": "1", "uid": "theirs"}}

    await Provisioner(server).provision(WEB, BASIC)

    assert SCALER in server.objects


FOREIGN = [
    ([], "Service shop/infergate-web exists and does not belong to Gateway web"),
    (
        [{"kind": "Gateway", "name": "web", "uid": "u-0", "controller": True}],
        "Service shop/infergate-web exists and belongs to a former Gateway of this name",
    ),
]


@pytest.mark.parametrize(("owners", "problem"), FOREIGN)
async def test_foreign_object_is_told_and_left_alone(server: ApiServer, owners: list[Json], problem: str) -> None:
    theirs = {"metadata": {"resourceVersion": "1", "ownerReferences": owners}, "spec": {"type": "NodePort"}}
    server.objects[SERVICE] = theirs

    found = await Provisioner(server).provision(WEB, BASIC)

    assert found.problems == (problem,)
    assert server.objects[SERVICE] == theirs
    assert found.changed == ("PodDisruptionBudget", "Deployment")


async def test_object_that_is_being_deleted_is_waited_for(server: ApiServer) -> None:
    await Provisioner(server).provision(WEB, BASIC)
    server.objects[DEPLOYMENT]["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"

    found = await Provisioner(server).provision(WEB, BASIC)

    assert found.problems == ("Deployment shop/infergate-web is being deleted",)


async def test_refusal_names_the_field_and_keeps_nothing_from_the_rest(server: ApiServer) -> None:
    words = "spec.loadBalancerClass: Invalid value: null: may not change once set"
    server.refused[SERVICE] = f'Service "infergate-web" is invalid: {words}'

    found = await Provisioner(server).provision(WEB, BASIC)

    assert found.problems == (f"Service shop/infergate-web: {words}",)
    assert DEPLOYMENT in server.objects


async def test_refused_object_is_tried_again(server: ApiServer) -> None:
    server.refused[SERVICE] = "no"
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, BASIC)
    server.refused.clear()

    assert (await provisioner.provision(WEB, BASIC)).changed == ("Service",)


async def test_busy_api_server_is_no_problem_of_the_gateway_and_keeps_nothing_from_the_rest(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    server.busy[SERVICE] = [ApiBusy(503, "ServiceUnavailable", "etcdserver: leader changed")]

    found, after = [await provisioner.provision(WEB, BASIC) for _ in range(2)]

    assert (found.problems, found.changed) == ((), ("PodDisruptionBudget", "Deployment"))
    assert found.busy is not None
    assert found.busy.code == 503
    assert (after.busy, after.changed) == (None, ("Service",))


async def test_api_server_that_is_gone_is_raised(server: ApiServer) -> None:
    server.is_gone = True
    with pytest.raises(ApiUnreachable):
        await Provisioner(server).provision(WEB, BASIC)


async def test_replicas_are_held_while_they_are_handed_to_an_autoscaler(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, BASIC)
    server.writes.clear()

    await provisioner.provision(WEB, SCALED)
    on_deployment = [manager for _, path, manager in server.writes if path == DEPLOYMENT]
    await provisioner.provision(WEB, SCALED)

    assert on_deployment == ["infergate-autoscaling", "infergate"]
    assert server.objects[DEPLOYMENT]["spec"]["replicas"] == 2


async def test_forgotten_gateway_is_applied_anew(server: ApiServer) -> None:
    provisioner = Provisioner(server)
    await provisioner.provision(WEB, BASIC)
    server.writes.clear()
    provisioner.forget(WEB)

    await provisioner.provision(WEB, BASIC)

    assert len(server.writes) == 3
