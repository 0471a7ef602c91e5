import asyncio
import os
import signal
import socket
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable

import httpx
import pytest

from controller.agent import client, leftovers
from controller.agent.apply import Applied, Applier, Options
from controller.agent.nginx import Nginx, check
from controller.agent.state import State
from controller.bundle import Bundle
from controller.errors import NginxNotRunning, NginxRefused

pytestmark = pytest.mark.nginx

Until = Callable[[Callable[[], bool]], Awaitable[None]]
Make = Callable[..., Bundle]


def _answering(port: int, answer: str) -> str:
    return f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{answer}"; }} }}'


async def _get(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://127.0.0.1:{port}/")).text


async def _raw_get(port: int) -> str:
    """The body of an answer on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().partition("\r\n\r\n")[2]


async def test_bundle_is_served(applier: Applier, bundle: Make, port: int) -> None:
    outcome = await applier.apply(bundle("a", _answering(port, "one")))
    assert isinstance(outcome, Applied)
    assert (outcome.version, outcome.is_reloaded, applier.live) == ("a", True, "a")
    assert await _get(port) == "one"


async def test_next_bundle_is_reloaded_by_the_same_master(applier: Applier, bundle: Make) -> None:
    await applier.apply(bundle("a"))
    master = applier.pid
    assert isinstance(await applier.apply(bundle("b")), Applied)
    assert applier.pid == master


async def test_old_workers_end_and_new_ones_stay(
    applier: Applier, bundle: Make, until: Until, children: Callable[[int], list[int]]
) -> None:
    await applier.apply(bundle("a"))
    old = set(children(applier.pid or 0))
    await applier.apply(bundle("b"))
    new = set(children(applier.pid or 0)) - old
    await until(lambda: set(children(applier.pid or 0)) == new)
    assert len(new) == 2


async def test_old_worker_that_is_slow_to_hear_serves_nobody_once_the_next_is_live(
    applier: Applier, bundle: Make, port: int, children: Callable[[int], list[int]]
) -> None:
    await applier.apply(bundle("a", _answering(port, "one")))
    old = children(applier.pid or 0)
    for worker in old:
        os.kill(worker, signal.SIGSTOP)  # as one that has not come to run since it was told
    applying = asyncio.create_task(applier.apply(bundle("b", _answering(port, "two"))))
    await asyncio.sleep(0.3)
    assert not applying.done()
    for worker in old:
        os.kill(worker, signal.SIGCONT)
    assert isinstance(await applying, Applied)
    assert [await _get(port) for _ in range(20)] == ["two"] * 20


async def test_same_version_is_not_reloaded(
    applier: Applier, bundle: Make, state: State, children: Callable[[int], list[int]]
) -> None:
    await applier.apply(bundle("a"))
    workers = children(applier.pid or 0)
    outcome = await applier.apply(bundle("a"))
    assert isinstance(outcome, Applied)
    assert not outcome.is_reloaded
    assert children(applier.pid or 0) == workers
    assert [path.name for path in state.releases.iterdir()] == ["000001"]


async def test_refused_bundle_leaves_the_last_one_live(applier: Applier, bundle: Make, state: State, port: int) -> None:
    await applier.apply(bundle("a", _answering(port, "one")))
    outcome = await applier.apply(bundle("b", "server {\n  nonsense on;\n}"))
    assert outcome == NginxRefused("routes/0.conf", 2, 'unknown directive "nonsense"')
    assert await _get(port) == "one"
    assert (applier.live, state.current.readlink().name) == ("a", "000001")


async def test_a_running_nginx_tests_what_it_loads_itself(
    applier: Applier, bundle: Make, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[str] = []

    async def counted(nginx: Nginx, state: State, configuration: str, *, stdout: int | None = None) -> object:
        tested.append(configuration)
        return await check(nginx, state, configuration, stdout=stdout)

    monkeypatch.setattr("controller.agent.apply.check", counted)
    assert isinstance(await applier.apply(bundle("a", _answering(port, "one"))), Applied)
    assert len(tested) == 1
    assert isinstance(await applier.apply(bundle("b", _answering(port, "two"))), Applied)
    assert len(tested) == 1
    refused = await applier.apply(bundle("c", "server {\n  nonsense on;\n}"))
    assert refused == NginxRefused("routes/0.conf", 2, 'unknown directive "nonsense"')
    assert len(tested) == 2
    assert (await _get(port), applier.live) == ("two", "b")
    assert isinstance(await applier.apply(bundle("d", _answering(port, "four"))), Applied)
    assert (await _get(port), len(tested)) == ("four", 2)


async def test_refused_first_bundle_starts_nothing(applier: Applier, bundle: Make, state: State) -> None:
    assert isinstance(await applier.apply(bundle("a", "nonsense;")), NginxRefused)
    assert applier.pid is None
    assert not state.current.is_symlink()


async def test_stream_survives_reloads(applier: Applier, bundle: Make, port: int) -> None:
    turn: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while event := await turn.get():
            writer.write(event)
        writer.close()

    async with await asyncio.start_server(stream, "127.0.0.1", 0) as server:
        backend = server.sockets[0].getsockname()[1]
        proxy = f"proxy_pass http://127.0.0.1:{backend}; proxy_buffering off;"
        routes = f"server {{ listen 127.0.0.1:{port}; location / {{ {proxy} }} }}"
        await applier.apply(bundle("0", routes))
        async with (
            asyncio.timeout(10),
            httpx.AsyncClient(trust_env=False) as http,
            http.stream("GET", f"http://127.0.0.1:{port}/") as answer,
        ):
            lines = answer.aiter_lines()
            for version in "123":
                turn.put_nowait(f"{version}\n".encode())
                assert await anext(lines) == version
                assert isinstance(await applier.apply(bundle(version, routes)), Applied)
            turn.put_nowait(b"")
            assert [line async for line in lines] == []


async def test_no_request_fails_during_reloads(applier: Applier, bundle: Make, port: int) -> None:
    await applier.apply(bundle("0", _answering(port, "0")))
    is_over = asyncio.Event()

    async def ask() -> list[str]:
        answers = []
        while not is_over.is_set():
            answers.append(await _raw_get(port))
        return answers

    async with asyncio.TaskGroup() as clients:
        asking = [clients.create_task(ask()) for _ in range(4)]
        for version in "12345":
            assert isinstance(await applier.apply(bundle(version, _answering(port, version))), Applied)
        is_over.set()
    assert {answer for task in asking for answer in task.result()} <= set("012345")
    assert await _raw_get(port) == "5"


async def test_port_in_use_is_refused_at_start_and_served_when_free(applier: Applier, bundle: Make, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        outcome = await applier.apply(bundle("a", _answering(port, "one")))
    assert isinstance(outcome, NginxRefused)
    assert f"bind() to 127.0.0.1:{port} failed" in outcome.message
    assert applier.pid is None
    assert isinstance(await applier.apply(bundle("a", _answering(port, "one"))), Applied)


async def test_port_in_use_at_a_reload_keeps_the_last_release(
    applier: Applier, bundle: Make, state: State, port: int
) -> None:
    await applier.apply(bundle("a"))
    with socket.create_server(("127.0.0.1", port)):
        outcome = await applier.apply(bundle("b", _answering(port, "one")))
    assert isinstance(outcome, NginxRefused)
    assert f"bind() to 127.0.0.1:{port} failed" in outcome.message
    assert await client.version(state) == "a"
    assert (applier.live, state.current.readlink().name) == ("a", "000001")


async def test_killed_master_comes_back_without_its_old_workers(
    applier: Applier,
    bundle: Make,
    port: int,
    until: Until,
    children: Callable[[int], list[int]],
    is_running: Callable[[int], bool],
) -> None:
    await applier.apply(bundle("a", _answering(port, "one")))
    master = applier.pid or 0
    workers = children(master)
    os.kill(master, signal.SIGKILL)
    await until(lambda: applier.pid not in (None, master))
    await until(lambda: not any(map(is_running, workers)))
    outcome = await applier.apply(bundle("a", _answering(port, "one")))
    assert isinstance(outcome, Applied)
    assert await _get(port) == "one"


async def test_killed_worker_comes_back(
    applier: Applier, bundle: Make, port: int, until: Until, children: Callable[[int], list[int]]
) -> None:
    await applier.apply(bundle("a", _answering(port, "one")))
    workers = children(applier.pid or 0)
    os.kill(workers[0], signal.SIGKILL)
    await until(lambda: children(applier.pid or 0) not in ([], workers))
    assert await _get(port) == "one"


async def test_bundle_that_comes_while_the_master_is_down_goes_live(applier: Applier, bundle: Make) -> None:
    await applier.apply(bundle("a"))
    os.kill(applier.pid or 0, signal.SIGKILL)
    assert isinstance(await applier.apply(bundle("b")), Applied)


async def test_nginx_of_an_earlier_life_is_taken_down(
    state: State, nginx: Nginx, bundle: Make, port: int, is_running: Callable[[int], bool]
) -> None:
    async with Applier(state, nginx) as earlier:
        await earlier.apply(bundle("a", _answering(port, "one")))
        stray = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, cwd=state.root)
        assert stray.stdin
        assert stray.stdout
        # A process that has just begun has no arguments yet.
        stray.stdin.write(b"\n")
        await stray.stdout.readline()
        forgotten = earlier.pid or 0
        await leftovers.take_down(state, [("cat",)])
        assert not is_running(forgotten)
        assert await stray.wait() == -signal.SIGTERM


async def test_releases_are_pruned(state: State, nginx: Nginx, bundle: Make) -> None:
    async with Applier(state, nginx, options=Options(keep=2)) as applier:
        for version in "abcd":
            await applier.apply(bundle(version))
    assert sorted(path.name for path in state.releases.iterdir()) == ["000003", "000004"]


async def test_last_release_is_resumed(state: State, nginx: Nginx, bundle: Make, port: int) -> None:
    async with Applier(state, nginx) as applier:
        await applier.apply(bundle("a", _answering(port, "one")))
    async with Applier(state, nginx) as applier:
        outcome = await applier.resume()
        assert isinstance(outcome, Applied)
        assert (outcome.version, outcome.number, await _get(port)) == ("a", 1, "one")


async def test_nothing_is_resumed_from_an_empty_directory(applier: Applier) -> None:
    assert await applier.resume() is None


async def test_nginx_that_answers_another_version_is_reported(state: State, nginx: Nginx, bundle: Make) -> None:
    wrong = bundle("a")
    async with Applier(state, nginx, options=Options(confirm=0.3)) as applier:
        with pytest.raises(NginxNotRunning, match="no nginx worker answered for version b"):
            await applier.apply(Bundle("shop/edge", "b", wrong.files, wrong.pools))


async def test_stop_leaves_no_process(
    state: State, nginx: Nginx, bundle: Make, children: Callable[[int], list[int]], is_running: Callable[[int], bool]
) -> None:
    async with Applier(state, nginx) as applier:
        await applier.apply(bundle("a"))
        pids = [applier.pid or 0, *children(applier.pid or 0)]
    assert len(pids) == 3
    assert not any(map(is_running, pids))
