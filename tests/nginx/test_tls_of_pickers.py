"""External pickers in TLS, known as a BackendTLSPolicy says. Through nginx and the relay."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.nginx.certificates import Authority
from tests.nginx.ext_proc import as_the_field_does, serve_ext_proc
from tests.nginx.gateway import client_of
from tests.nginx.resources import Json, authorities, picked_pool, route, rule, tls_policy, to_pool
from tests.nginx.scene import Scene

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

OURS, OTHER = Authority("ours"), Authority("other")
NAME, ELSE, URI = "backend.example", "epp.example", "spiffe://cluster/epp"


def _names(*names: str) -> list[Json]:
    return [{"type": "URI", "uri": name} if ":" in name else {"type": "Hostname", "hostname": name} for name in names]


@pytest_asyncio.fixture(loop_scope="module")
async def scene(scene: Scene) -> AsyncIterator[Scene]:
    """The scene, and after the test without the pool that it adds."""
    yield scene
    await scene.gateway.apply("other.yaml")


KNOWN = {
    "by its name": (OURS.certificate(NAME), [], 200),
    "of another authority": (OTHER.certificate(NAME), [], 503),
    "by another name": (OURS.certificate(ELSE), [], 503),
    "that has expired": (OURS.certificate(NAME, days=-1), [], 503),
    "by an alternative name": (OURS.certificate(ELSE), [ELSE], 200),
    "by a pattern of names": (OURS.certificate("*.pickers.example"), ["other.example", "a.pickers.example"], 200),
    "by a URI": (OURS.certificate(URI), [ELSE, URI], 200),
    "by the name that is asked for, where others are wanted": (OURS.certificate(NAME), [ELSE, URI], 503),
    "by an alternative name of another authority": (OTHER.certificate(ELSE), [ELSE], 503),
}


@pytest.mark.parametrize("plain", [False, True], ids=["http2", "h2c"])
@pytest.mark.parametrize(("certificate", "names", "status"), KNOWN.values(), ids=KNOWN)
async def test_picker_is_known(
    scene: Scene, certificate: tuple[bytes, bytes], names: list[str], status: int, plain: bool
) -> None:
    async with serve_ext_proc(as_the_field_does(scene.a.address), certificate=certificate) as picker:
        made = picked_pool("other", scene.a.address, pickers=[picker.address], tls=not plain)
        policy = tls_policy("other-picker", subjectAltNames=_names(*names))
        leads = route("other", rule(to_pool("other")), hostnames=["other.test"])
        await scene.gateway.apply("other.yaml", made, leads, policy, authorities("ca", OURS.chain))
        # On a connection of its own, since a kept one may be that of a worker that serves what was before.
        async with client_of(scene.gateway) as http:
            answer = await http.post("/v1/x", content=b"{}", headers={"host": "other.test"})
        assert answer.status_code == status, answer.text
        assert len(picker.stages) == (status == 200)
        (known,) = [item for item in (await scene.gateway.relay())["pickers"] if item["address"] == picker.address]
        assert known["tls"] == "verified"


@pytest.mark.parametrize(("mode", "status"), [("FailClose", 503), ("FailOpen", 200)])
async def test_failure_mode_decides_where_a_picker_is_not_known(scene: Scene, mode: str, status: int) -> None:
    async with serve_ext_proc(as_the_field_does(scene.a.address), certificate=OTHER.certificate(NAME)) as picker:
        made = picked_pool("other", scene.a.address, pickers=[picker.address], mode=mode)
        leads = route("other", rule(to_pool("other")), hostnames=["other.test"])
        await scene.gateway.apply("other.yaml", made, leads, tls_policy("other-picker"), authorities("ca", OURS.chain))
        async with client_of(scene.gateway) as http:
            answer = await http.post("/v1/x", content=b"x" * 100_000, headers={"host": "other.test"})
        assert answer.status_code == status
        assert not picker.stages


async def test_policy_that_comes_and_goes_is_followed(scene: Scene) -> None:
    async with serve_ext_proc(as_the_field_does(scene.a.address)) as picker:
        made = picked_pool("other", scene.a.address, pickers=[picker.address])
        leads = route("other", rule(to_pool("other")), hostnames=["other.test"])
        for more, status in (((), 200), ((tls_policy("other-picker"), authorities("ca", OURS.chain)), 503), ((), 200)):
            await scene.gateway.apply("other.yaml", made, leads, *more)
            async with client_of(scene.gateway) as http:
                answer = await http.post("/v1/x", content=b"{}", headers={"host": "other.test"})
            assert answer.status_code == status
