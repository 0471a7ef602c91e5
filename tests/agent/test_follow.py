"""Rules of the agent that need no process; `tests/dataplane/test_agent.py` has the rest."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from controller.agent.apply import Applied
from controller.agent.follow import Follower
from controller.agent.judge import Judge
from controller.agent.machine import Machine
from controller.agent.metrics import metrics_of
from controller.agent.standing import Standing
from controller.agent.telling import keep_telling
from controller.agent.tries import tries
from controller.bundle import Bundle, BundleFile
from controller.errors import ControlPlaneFailed, NginxNotRunning, NginxRefused
from controller.pools import Pool, Pools, pools_of
from controller.wire import Delivery, Refusal, Statement

Until = Callable[[Callable[[], bool]], Awaitable[None]]

_NONE = pools_of(())
_GPU = pools_of((Pool("llm/gpu"),))
_CPU = pools_of((Pool("llm/cpu"),))
_FILES = (BundleFile("nginx.conf", b""),)


@dataclass(frozen=True)
class _Outcome:
    serving: bool
    refusal: NginxRefused | None = None
    seconds: float = 0.0


@dataclass
class _DataPlane:
    outcomes: list[_Outcome | Exception] = field(default_factory=list)
    applied: list[tuple[str, str]] = field(default_factory=list)
    """Version and etag of each bundle."""
    pools: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    """One for each delivery; none after them."""
    resumed: Applied | NginxRefused | None = None
    answered: str | None = None
    is_nginx_wanted: bool = True
    nginx_pid: int | None = 1

    @property
    def reload_pause(self) -> float:
        return self.pauses[0] if self.pauses else 0.0

    async def resume(self) -> Applied | NginxRefused | None:
        return self.resumed

    async def apply(self, bundle: Bundle) -> _Outcome:
        self.applied.append((bundle.version, bundle.pools.etag))
        outcome = self.outcomes.pop(0) if self.outcomes else _Outcome(True)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def apply_pools(self, pools: Pools) -> None:
        self.pools.append(pools.etag)

    async def version(self) -> str | None:
        return self.answered


@dataclass
class _Source:
    deliveries: list[Delivery | Exception | None]
    asked: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    async def fetch(self, *, version: str, etag: str, wait: float) -> Delivery | None:
        self.asked.append((version, etag))
        self.waits.append(wait)
        self.before()
        if not self.deliveries:
            await asyncio.Event().wait()
        delivery = self.deliveries.pop(0)
        if isinstance(delivery, Exception):
            raise delivery
        return delivery


def _delivery(version: str, pools: Pools = _NONE, *, files: bool = True, sends_pools: bool = True) -> Delivery:
    return Delivery("shop/edge", version, pools.etag, _FILES if files else None, pools if sends_pools else None)


async def _follow(
    deliveries: list[Delivery | Exception | None], data_plane: _DataPlane, until: Until, *, only_pools: bool = False
) -> tuple[Standing, list[tuple[str, str]]]:
    source, standing = _Source(deliveries), Standing()
    metrics = metrics_of(lambda: True)
    follower = Follower(source, data_plane, standing, metrics=metrics, rng=random.Random(1))
    count = len(deliveries)
    following = asyncio.create_task(follower.follow_pools() if only_pools else follower.run())
    await until(lambda: len(source.asked) == count + 1)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return standing, source.asked


async def test_files_alone_go_with_the_pools_that_were_had(until: Until) -> None:
    data_plane = _DataPlane()
    _, asked = await _follow([_delivery("a", _GPU), _delivery("b", _GPU, sends_pools=False)], data_plane, until)
    assert data_plane.applied == [("a", _GPU.etag), ("b", _GPU.etag)]
    assert asked == [("", ""), ("a", _GPU.etag), ("b", _GPU.etag)]


async def test_versions_that_wait_for_the_end_of_an_apply_wait_as_long_again_and_become_one(until: Until) -> None:
    data_plane = _DataPlane([_Outcome(True, seconds=0.2)])
    deliveries: list[Delivery | Exception | None] = [_delivery("a"), _delivery("b"), _delivery("c")]
    began = asyncio.get_running_loop().time()
    _, asked = await _follow(deliveries, data_plane, until)
    assert [version for version, _ in data_plane.applied] == ["a", "c"]
    assert [version for version, _ in asked] == ["", "a", "b", "c"]
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_pools_alone_are_applied_without_the_files(until: Until) -> None:
    data_plane = _DataPlane()
    standing, _ = await _follow([_delivery("a"), _delivery("a", _GPU, files=False)], data_plane, until)
    assert (data_plane.applied, data_plane.pools) == ([("a", _NONE.etag)], [_GPU.etag])
    assert standing.statement == Statement("a", "a", _GPU.etag, seconds=0.0)


async def test_refused_version_is_not_asked_for_again(until: Until) -> None:
    data_plane = _DataPlane([_Outcome(True), _Outcome(False, NginxRefused("f", 1, "no"))])
    standing, asked = await _follow([_delivery("a"), _delivery("b")], data_plane, until)
    assert asked[-1] == ("b", _NONE.etag)
    assert (standing.statement.version, standing.statement.live, standing.is_serving) == ("b", "a", False)


async def test_version_that_could_not_be_tried_is_tried_again(until: Until) -> None:
    data_plane = _DataPlane([NginxNotRunning("no answer")])
    standing, asked = await _follow([_delivery("a"), None], data_plane, until)
    assert (data_plane.applied, asked[-1]) == ([("a", _NONE.etag)] * 2, ("a", _NONE.etag))
    assert (standing.statement.problem, standing.is_serving) == ("", True)


async def test_reload_waits_for_streams_and_pools_do_not(until: Until) -> None:
    data_plane = _DataPlane()
    source = _Source([_delivery("a", _GPU), _delivery("b"), _delivery("b", _CPU, files=False), None])

    def pause() -> None:
        """Long from the second question on, over after the fourth."""
        data_plane.pauses = {2: [7.0], 3: [7.0]}.get(len(source.asked), [])

    source.before = pause
    standing = Standing()
    follower = Follower(source, data_plane, standing, metrics=metrics_of(lambda: True), rng=random.Random(1))
    following = asyncio.create_task(follower.run())
    await until(lambda: len(source.asked) == 5)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    both = pools_of((*_GPU.pools, *_CPU.pools)).etag
    assert data_plane.applied == [("a", _GPU.etag), ("b", _CPU.etag)]
    assert data_plane.pools == [_GPU.etag, both]  # the live version still asks for its own
    assert source.waits[1:4] == [20.0, 7.0, 7.0]
    assert standing.is_serving


async def test_failure_is_said_until_it_is_over(until: Until) -> None:
    standing, _ = await _follow([_delivery("a")], _DataPlane([NginxNotRunning("no answer")]), until)
    assert standing.statement.problem == "no answer"


async def test_control_plane_out_of_reach_is_logged_once(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    away = [ControlPlaneFailed("refused"), ControlPlaneFailed("refused"), None]
    await _follow([*away], _DataPlane(), until)
    assert [record.getMessage() for record in caplog.records] == [
        "control plane cannot be asked",
        "control plane answers again",
    ]


async def test_instance_that_ends_takes_pools_only(until: Until) -> None:
    data_plane = _DataPlane()
    _, asked = await _follow([_delivery("b", _GPU)], data_plane, until, only_pools=True)
    assert (data_plane.applied, data_plane.pools) == ([], [_GPU.etag])
    assert asked[-1] == ("b", _GPU.etag)


def test_refusal_does_not_pass_to_the_next_version() -> None:
    standing = Standing(Statement("a", "a"))
    standing.refuses("b", Refusal("no"), seconds=0.1)
    standing.had(version="b", etag="1")
    assert standing.statement.refusal == Refusal("no")
    standing.had(version="c", etag="1")
    assert standing.statement == Statement("c", "a", "1")


async def test_instance_that_leaves_is_not_ready_again(until: Until) -> None:
    standing = Standing()
    standing.leave()
    standing.serves("b", seconds=0.1)
    assert standing.statement.is_leaving


@pytest.mark.parametrize(
    ("live", "applying", "answered", "ready"),
    [
        ("", "", None, False),
        ("", "a", "a", False),
        ("a", "", "a", True),
        ("a", "b", "b", True),
        ("a", "b", "a", True),
        ("a", "", "z", False),
        ("a", "", None, False),
    ],
)
async def test_instance_is_ready(live: str, applying: str, answered: str | None, ready: bool) -> None:
    standing = Standing(Statement(live, live), applying=applying)
    judge = Judge(_DataPlane(answered=answered), standing)
    assert (await judge.why_not_ready() == "") is ready


@pytest.mark.parametrize(
    ("idle", "wanted", "pid", "answered", "healthy"),
    [
        (0.0, False, None, None, True),
        (0.0, True, 1, "a", True),
        (0.0, True, None, "a", False),
        (0.0, True, 1, None, False),
        (600.0, True, 1, "a", False),
    ],
)
async def test_instance_is_healthy(
    idle: float, wanted: bool, pid: int | None, answered: str | None, healthy: bool
) -> None:
    standing = Standing(looked_at=asyncio.get_running_loop().time() - idle)
    data_plane = _DataPlane(is_nginx_wanted=wanted, nginx_pid=pid, answered=answered)
    judge = Judge(data_plane, standing)
    assert (await judge.why_not_healthy() == "") is healthy


async def test_last_word_is_that_the_instance_leaves() -> None:
    told: list[Statement | str] = []

    class Ear:
        async def tell(self, statement: Statement) -> None:
            told.append(statement)
            if len(told) == 1:
                raise ControlPlaneFailed("not now")
            standing.leave()

    standing = Standing(Statement("a", "a"))
    async with asyncio.timeout(5):
        await keep_telling(Ear(), standing, rng=random.Random(1))
    assert told == [Statement("a", "a"), Statement("a", "a"), Statement("a", "a", is_leaving=True)]


@pytest.mark.parametrize(
    ("conf", "fit"),
    [
        (b"# worker_processes auto;\nworker_processes auto;", b"# worker_processes auto;\nworker_processes 3;"),
        (b"worker_processes 8;", b"worker_processes 8;"),
        (b"worker_rlimit_nofile 65536;", b"worker_rlimit_nofile 4096;"),
        (b"worker_rlimit_nofile 1024;", b"worker_rlimit_nofile 1024;"),
    ],
)
def test_bundle_fits_its_container(conf: bytes, fit: bytes) -> None:
    machine = Machine(processors=lambda: 3, open_files=lambda wanted: min(wanted, 4096))
    files = (BundleFile("nginx.conf", conf), BundleFile("tls/0.key", conf, secret=True))
    made = machine.fit(Bundle("shop/edge", "a", files, _NONE))
    assert (made.files, made.version) == ((BundleFile("nginx.conf", fit), files[1]), "a")


def test_pauses_grow_to_a_limit_and_differ() -> None:
    one, other = (tries(random.Random(seed)) for seed in (1, 2))
    pauses = [one.delay() for _ in range(12)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, (0.1, 0.2, 0.4), strict=False))
    assert 2.5 <= pauses[-1] <= 5.0
    assert [other.delay() for _ in range(12)] != pauses
    one.reset()
    assert one.delay() <= 0.1
