"""The loop with a data plane that answers what a test tells it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from controller.bundle import Bundle
from controller.dataplane.base import Report
from controller.errors import NginxNotRunning, NginxRefused
from controller.ir.streams import Opening
from controller.pools import Pools
from controller.provider.base import Change
from controller.provider.file import read
from controller.reconcile import Reconciler, State
from controller.render.files import RenderSettings
from controller.resources.snapshot import Snapshot

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: infergate
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
  - {name: other, port: 8081, protocol: HTTP}
"""
POOL = """\
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: gpu}
spec: {selector: {matchLabels: {app: gpu}}, targetPorts: [{number: 8000}]}
"""
TIMEOUT = 5.0


def _route(name: str, path: str, kind: str = "PathPrefix") -> str:
    return f"""\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  - matches: [{{path: {{type: {kind}, value: "{path}"}}}}]
    backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}}]
"""


def _pod(name: str) -> str:
    return f"""\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: gpu}}}}
status: {{podIP: 10.0.0.{len(name)}}}
"""


Judge = Callable[[Bundle], NginxRefused | None]


def _takes_all(bundle: Bundle) -> NginxRefused | None:
    return None


@dataclass
class FakeDataPlane:
    """Remembers what it was asked, and judges bundles as told."""

    judge: Judge = _takes_all
    trouble: dict[int, Exception] = field(default_factory=dict)
    """What calls of `apply` raise, by their number from 1."""
    reload_pause: float = 0.0
    calls: int = 0
    applied: list[Bundle] = field(default_factory=list)
    pools: list[Pools] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def apply(self, bundle: Bundle) -> Report:
        self.calls += 1
        if self.calls in self.trouble:
            raise self.trouble[self.calls]
        self.applied.append(bundle)
        refusal = self.judge(bundle)
        return Report(bundle.gateway, bundle.version, serving=refusal is None, refusal=refusal, seconds=0.0)

    async def apply_pools(self, pools: Pools) -> None:
        self.pools.append(pools)


def _text(bundle: Bundle) -> str:
    return "\n".join(file.content.decode() for file in bundle.files if not file.secret)


def _refusing(words: str) -> Judge:
    """nginx as it would refuse the first line of rules that holds the words."""

    def judge(bundle: Bundle) -> NginxRefused | None:
        for file in bundle.files:
            for number, line in enumerate(file.content.decode().splitlines(), start=1):
                if words in line and not line.lstrip().startswith("#"):
                    return NginxRefused(file.path, number, f"cannot take {words}")
        return None

    return judge


@dataclass
class Loop:
    """A reconciler with a directory of one file."""

    directory: Path
    data_plane: FakeDataPlane
    states: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reconciler = Reconciler(
            self.data_plane, RenderSettings(), on_state=self.states.append, endpoints_delay=0.01, retry=0.01
        )

    def snapshot(self, *documents: str) -> Snapshot:
        (self.directory / "all.yaml").write_text("".join(documents))
        return read(self.directory)

    async def turn(self, *documents: str) -> State:
        change = Change(sources=("all.yaml",), descriptions=(), detected_at=asyncio.get_running_loop().time())
        await self.reconciler.turn(self.snapshot(*documents), change)
        return self.states[-1]


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path, FakeDataPlane())


def _problems(state: State) -> dict[str, str]:
    return {key.name: message for key, message in state.refusals.routes.items()}


async def test_route_that_nginx_refuses_answers_500_and_the_rest_is_live(loop: Loop) -> None:
    loop.data_plane.judge = _refusing("bad[0-9]")
    state = await loop.turn(GATEWAY, POOL, _route("good", "/good"), _route("bad", "/bad[0-9]", "RegularExpression"))
    assert state.serving
    assert _problems(state) == {"bad": "cannot take bad[0-9]"}
    live = _text(loop.data_plane.applied[-1])
    assert 'location "/good/"' in live
    assert "bad[0-9]" not in live


async def test_refused_route_is_not_tried_again_until_it_changes(loop: Loop) -> None:
    loop.data_plane.judge = _refusing("bad[0-9]")
    bad = _route("bad", "/bad[0-9]", "RegularExpression")
    snapshot = loop.snapshot(GATEWAY, POOL, bad)
    change = Change((), (), 0.0)
    await loop.reconciler.turn(snapshot, change)
    tries = len(loop.data_plane.applied)
    await loop.reconciler.turn(snapshot, change)
    assert len(loop.data_plane.applied) == tries
    state = await loop.turn(GATEWAY, POOL, _route("bad", "/better", "RegularExpression"))
    assert _problems(state) == {}
    assert "/better" in _text(loop.data_plane.applied[-1])


async def test_several_refused_routes_are_taken_out_one_by_one(loop: Loop) -> None:
    loop.data_plane.judge = _refusing("bad[0-9]")
    routes = [_route(f"r{n}", f"/{n}/bad[0-9]", "RegularExpression") for n in range(5)]
    state = await loop.turn(GATEWAY, POOL, *routes)
    assert state.serving
    assert set(_problems(state)) == {f"r{n}" for n in range(5)}


async def test_port_that_cannot_be_opened_takes_only_its_listener(loop: Loop) -> None:
    def judge(bundle: Bundle) -> NginxRefused | None:
        taken = "listen 127.0.0.1:8081" in _text(bundle)
        message = "bind() to 127.0.0.1:8081 failed (98: Address already in use)"
        return NginxRefused(None, None, message) if taken else None

    loop.data_plane.judge = judge
    state = await loop.turn(GATEWAY, POOL, _route("good", "/good"))
    assert state.serving
    assert set(state.refusals.ports) == {Opening(8081)}
    assert "listen 127.0.0.1:8080" in _text(loop.data_plane.applied[-1])


async def test_port_in_use_costs_nginx_no_try(loop: Loop) -> None:
    loop.reconciler.can_open = lambda opening: opening.port != 8081
    for path in ("/a", "/b"):
        state = await loop.turn(GATEWAY, POOL, _route("good", path))
        assert set(state.refusals.ports) == {Opening(8081)}
        assert "or has an address of another machine" in state.refusals.ports[Opening(8081)]
    assert len(loop.data_plane.applied) == 2
    loop.reconciler.can_open = lambda opening: True
    assert not (await loop.turn(GATEWAY, POOL, _route("good", "/b"))).refusals.ports


async def test_refusal_that_nobody_caused_is_reported(loop: Loop) -> None:
    loop.data_plane.judge = lambda bundle: NginxRefused(None, None, "out of memory")
    state = await loop.turn(GATEWAY, POOL, _route("good", "/good"))
    assert not state.serving
    assert "out of memory" in state.problem


async def test_pods_come_and_go_without_a_reload(loop: Loop) -> None:
    await loop.turn(GATEWAY, POOL, _route("r", "/"), _pod("a"))
    await loop.turn(GATEWAY, POOL, _route("r", "/"), _pod("a"), _pod("bb"))
    assert len(loop.data_plane.applied) == 1
    (pools,) = loop.data_plane.pools
    assert [endpoint.address for endpoint in pools.pools[0].endpoints] == ["10.0.0.1:8000", "10.0.0.2:8000"]


async def test_foreign_resource_causes_no_reload(loop: Loop) -> None:
    foreign = "---\napiVersion: v1\nkind: Service\nmetadata: {name: foreign}\nspec: {ports: [{port: 1}]}\n"
    await loop.turn(GATEWAY, POOL, _route("r", "/"))
    await loop.turn(GATEWAY, POOL, _route("r", "/"), foreign)
    assert len(loop.data_plane.applied) == 1


async def _follow(loop: Loop, *snapshots: Snapshot) -> AsyncIterator[tuple[Snapshot, Change]]:
    for snapshot in snapshots:
        yield snapshot, Change(("all.yaml",), (), asyncio.get_running_loop().time())
    await asyncio.Event().wait()


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not is_so():  # noqa: ASYNC110 -- what is awaited has no event of its own
            await asyncio.sleep(0.001)


async def test_new_endpoints_get_kept_connections_with_a_later_reload(loop: Loop) -> None:
    first = loop.snapshot(GATEWAY, POOL, _route("r", "/"), _pod("a"))
    second = loop.snapshot(GATEWAY, POOL, _route("r", "/"), _pod("a"), _pod("bb"))
    running = asyncio.create_task(loop.reconciler.run(_follow(loop, first, second)))
    await _until(lambda: len(loop.data_plane.applied) == 2)
    running.cancel()
    assert "10.0.0.2:8000" in _text(loop.data_plane.applied[-1])


async def test_data_plane_in_trouble_is_tried_again_once_something_was_live(loop: Loop) -> None:
    first = loop.snapshot(GATEWAY, POOL, _route("r", "/a"))
    loop.data_plane.trouble[2] = NginxNotRunning("nginx is away")
    running = asyncio.create_task(loop.reconciler.run(_follow(loop, first, loop.snapshot(GATEWAY, POOL))))
    await _until(lambda: loop.data_plane.calls == 3)
    await _until(lambda: len(loop.states) == 2)
    running.cancel()
    assert loop.states[-1].serving


async def test_data_plane_in_trouble_from_the_start_ends_the_loop(loop: Loop) -> None:
    loop.data_plane.trouble[1] = NginxNotRunning("nginx is away")
    with pytest.raises(NginxNotRunning):
        await loop.reconciler.run(_follow(loop, loop.snapshot(GATEWAY)))


async def test_port_is_tried_again_by_itself(loop: Loop) -> None:
    taken = [True, True]

    def judge(bundle: Bundle) -> NginxRefused | None:
        if "listen 127.0.0.1:8081" in _text(bundle) and taken:
            taken.pop()
            return NginxRefused(None, None, "bind() to 127.0.0.1:8081 failed (98: Address already in use)")
        return None

    loop.data_plane.judge = judge
    running = asyncio.create_task(loop.reconciler.run(_follow(loop, loop.snapshot(GATEWAY, POOL, _route("r", "/")))))
    await _until(lambda: bool(loop.states) and not loop.states[-1].refusals.ports)
    running.cancel()
    assert "listen 127.0.0.1:8081" in _text(loop.data_plane.applied[-1])


async def test_change_waits_while_workers_of_many_versions_end_and_endpoints_do_not(loop: Loop) -> None:
    await loop.turn(GATEWAY, POOL, _route("good", "/a"))
    loop.data_plane.reload_pause = 60.0
    state = await loop.turn(GATEWAY, POOL, _route("good", "/b"), _pod("x"))
    assert state.serving is None
    assert len(loop.data_plane.applied) == 1
    assert [endpoint.name for endpoint in loop.data_plane.pools[-1].pools[0].endpoints] == ["default/x"]
    loop.data_plane.reload_pause = 0.0
    await loop.turn(GATEWAY, POOL, _route("good", "/c"), _pod("x"))
    assert "/c" in _text(loop.data_plane.applied[-1])


async def test_change_that_waited_goes_live_by_itself(loop: Loop) -> None:
    async def snapshots() -> AsyncIterator[tuple[Snapshot, Change]]:
        now = asyncio.get_running_loop().time()
        yield loop.snapshot(GATEWAY, POOL, _route("good", "/a")), Change((), (), now)
        loop.data_plane.reload_pause = 0.05
        yield loop.snapshot(GATEWAY, POOL, _route("good", "/b")), Change((), (), now)
        await asyncio.Event().wait()

    waits, is_live = asyncio.Event(), asyncio.Event()

    def hear(state: State) -> None:
        if state.serving is None:
            loop.data_plane.reload_pause = 0.0
            waits.set()
        elif waits.is_set():
            is_live.set()

    loop.reconciler.on_state = hear
    running = asyncio.create_task(loop.reconciler.run(snapshots()))
    await asyncio.wait_for(is_live.wait(), TIMEOUT)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "/b" in _text(loop.data_plane.applied[-1])
