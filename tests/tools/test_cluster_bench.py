import os
from pathlib import Path

import pytest
from aiohttp import web

from tools.bench.cluster import objects
from tools.bench.cluster.__main__ import FULL, Found, Wave, main, outcome_of
from tools.bench.cluster.asking import all_answer, shows
from tools.bench.cluster.effort import cpu, program, spent
from tools.bench.cluster.residents import Instance, is_program
from tools.bench.cluster.world import collection_of
from tools.bench.resources import REVISION_HEADER


class Routes:
    """Stands for a Gateway. Routes are live, or show their change, from their third request on."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        count = self.asked[request.path] = self.asked.get(request.path, 0) + 1
        if request.path.startswith("/route-9"):
            return web.Response(headers={REVISION_HEADER: "7" if count > 2 else "6"})
        return web.Response(status=200 if count > 2 else 404)


async def served(routes: Routes) -> tuple[web.AppRunner, str]:
    application = web.Application()
    application.router.add_get("/{path}", routes.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"{host}:{port}"


async def test_a_route_is_asked_until_it_answers_and_no_more() -> None:
    routes = Routes()
    runner, address = await served(routes)
    await all_answer(address, range(5))
    await runner.cleanup()
    assert routes.asked == {objects.path_of(number): 3 for number in range(5)}


async def test_a_change_is_seen_when_a_row_of_requests_shows_it() -> None:
    routes = Routes()
    runner, address = await served(routes)
    await shows(address, 9, revision=7)
    await runner.cleanup()
    assert routes.asked == {"/route-9": 8}


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (objects.namespace("a"), "/api/v1/namespaces"),
        (objects.service("a"), "/api/v1/namespaces/a/services"),
        (objects.route(1, namespace="a"), "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"),
    ],
)
def test_path_of_a_collection(made: dict[str, object], path: str) -> None:
    assert collection_of(made) == path


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python3 -m controller agent --gateway a/b", "agent"),
        ("python3 -m controller --log-format bare picker --socket s", "picker"),
        ("python3 -m controller controller --service agent", ""),
        ("nginx: worker process", ""),
    ],
)
def test_program_of_a_command_line(command: str, found: str) -> None:
    words = tuple(command.split())
    assert [name for name in ("agent", "picker") if is_program(words, name)] == ([found] if found else [])


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("/cache/bin/kube-apiserver --secure-port=6443", "kube-apiserver"),
        ("python3 -m controller controller --service agent", "control plane"),
        ("python3 -m controller --log-format bare picker --socket s", "picker"),
        ("nginx: worker process", "nginx"),
        ("/usr/sbin/nginx -t", "nginx"),
        ("", "others"),
    ],
)
def test_time_is_counted_for_the_program_that_a_process_runs(command: str, found: str) -> None:
    assert program(tuple(command.split(" "))) == found


def test_time_is_read_whatever_the_name_of_a_process_holds() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    text = f"7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 {2 * ticks} {ticks} {ticks} 0 20 0 1 0 100 0 0"

    assert cpu(text) == (3.0, 1.0)


def test_what_used_most_comes_first_and_what_used_nothing_not_at_all() -> None:
    before, after = {"nginx": 1.0, "etcd": 1.0, "agent": 5.0}, {"nginx": 2.0, "etcd": 1.0, "picker": 3.0, "agent": 4.0}

    assert list(spent(before, after).items()) == [("picker", 3.0), ("nginx", 1.0)]


def test_every_pod_has_an_address_of_its_own() -> None:
    addresses = {objects.pod_status(number)["status"]["podIP"] for number in range(FULL.pods)}
    assert len(addresses) == FULL.pods


def test_bars_name_what_is_over_them() -> None:
    wave = Wave(450, creating=5.0, live_after_first=7.0, live_after_last=2.0, cpu={"nginx": 3.0})
    found = Found(wave, wave, (0.1, 0.2, 0.9), 260.0, Instance(60.0, 80.0), Instance(70.0, 90.0))
    assert [bar.what for bar in outcome_of(found, FULL).bars if not bar.is_met] == [
        "the other routes live after the first creation",
        "a change seen, worst",
        "resident memory of the leader",
    ]


def test_without_a_cluster_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert main(["--quick", "--output", str(tmp_path)]) != 0
    assert "KUBECONFIG" in capsys.readouterr().err
