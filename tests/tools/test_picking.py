import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import pytest
import yaml

from controller.agent.nginx import find
from controller.errors import NginxMissing
from tools.bench.failures import CannotMeasure
from tools.bench.picking import load_process
from tools.bench.picking.__main__ import main
from tools.bench.picking.comparison import bars, contests, figures_table, missing, shares_table
from tools.bench.picking.figures import Figures, figures, is_good
from tools.bench.picking.lateness import Lateness as Timer
from tools.bench.picking.load import Job, Request, Sent
from tools.bench.picking.measure import Plan, Run
from tools.bench.picking.pods import pods_of, running_pods
from tools.bench.picking.policies import Policy, scorers_of, write_resources
from tools.bench.picking.results import Results, code_version, is_done, of_version
from tools.bench.picking.scenarios import SCENARIOS, Groups, Scenario
from tools.bench.picking.shares import Lateness, Moment, Part, Shares, between, parse_busy, strain
from tools.bench.picking.workload import Session, Turn, sessions
from tools.bench.report import verdict
from tools.bench.resources import PICKED_HOST, SERVICE_HOST

GOOD = Request(
    sent=13.0,
    late=0.001,
    status=200,
    pod="pod-1",
    first=0.5,
    whole=1.5,
    prompt_tokens=100,
    cached_tokens=80,
    answer_tokens=41,
)


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_seed_gives_the_same_sessions_and_another_gives_others(name: str) -> None:
    assert sessions(SCENARIOS[name], seed=1, seconds=4) == sessions(SCENARIOS[name], seed=1, seconds=4)
    assert sessions(SCENARIOS[name], seed=1, seconds=4) != sessions(SCENARIOS[name], seed=2, seconds=4)


def test_longer_run_begins_like_a_shorter_one() -> None:
    short = sessions(SCENARIOS["high"], seed=3, seconds=4)
    assert sessions(SCENARIOS["high"], seed=3, seconds=12)[: len(short)] == short


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_many_turns_as_the_rate_says(name: str) -> None:
    scenario = SCENARIOS[name]
    turns = sum(len(session.turns) for seed in range(3) for session in sessions(scenario, seed=seed, seconds=60))
    assert turns / 180 == pytest.approx(scenario.rate, rel=0.2)


def test_users_write_as_much_as_the_scenario_says_on_average() -> None:
    scenario = SCENARIOS["noprefix"]
    lengths = [len(session.turns[0].text) / 4 for session in sessions(scenario, seed=1, seconds=200)]
    assert mean(lengths) == pytest.approx(scenario.user_tokens, rel=0.05)


def test_popular_prompts_are_shared_and_as_long_as_the_scenario_says() -> None:
    prompts = Counter(session.system for session in sessions(SCENARIOS["hot44"], seed=1, seconds=60))
    assert {len(prompt) for prompt in prompts} == {8000}
    assert 0.25 < max(prompts.values()) / prompts.total() < 0.5


def test_nothing_is_shared_where_there_are_no_groups() -> None:
    found = sessions(SCENARIOS["noprefix"], seed=1, seconds=20)
    assert {session.system for session in found} == {""}
    assert len({session.turns[0].text[:16] for session in found}) == len(found)


def test_half_of_the_sessions_share_a_prompt_in_a_wave_and_none_before() -> None:
    scenario = SCENARIOS["hotwave"]
    found = sessions(scenario, seed=1, seconds=34)
    before = {session.system for session in found if session.begins < 14}
    during = [session.system for session in found if 14 <= session.begins < 26]
    prompt, count = Counter(during).most_common(1)[0]
    assert prompt not in before
    assert 0.3 < count / len(during) < 0.7


def test_adapters_are_models_of_their_own() -> None:
    models = {session.model for session in sessions(SCENARIOS["lora"], seed=1, seconds=34)}
    assert models == {f"adapter-{number}" for number in range(10)}


def test_pods_are_as_the_scenario_says() -> None:
    pods = pods_of(SCENARIOS["het"], seed=1)
    assert [pod.speed for pod in pods] == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert {pod.token_time for pod in pods_of(SCENARIOS["agents"], seed=1)} == {0.0000625}
    assert {len(pod.adapters) for pod in pods_of(SCENARIOS["lora"], seed=1)} == {10}


def test_policy_names_its_scorers_with_weights_and_its_picker(tmp_path: Path) -> None:
    assert write_resources(tmp_path, Policy.REFERENCE, port=8000, pods=(9001, 9002)) == PICKED_HOST
    spec = yaml.safe_load((tmp_path / "policy.yaml").read_text())["spec"]
    assert [plugin["type"] for plugin in spec["config"]["plugins"]] == [
        *scorers_of(Policy.REFERENCE),
        "max-score-picker",
    ]
    assert spec["config"]["schedulingProfiles"] == [
        {
            "name": "default",
            "plugins": [
                {"pluginRef": "queue-scorer", "weight": 2},
                {"pluginRef": "kv-cache-utilization-scorer", "weight": 2},
                {"pluginRef": "prefix-cache-scorer", "weight": 3},
                {"pluginRef": "max-score-picker"},
            ],
        }
    ]


@pytest.mark.parametrize(("policy", "host"), [(Policy.DEFAULT, PICKED_HOST), (Policy.ROUND_ROBIN, SERVICE_HOST)])
def test_pool_without_policy_and_service_have_no_profile(policy: Policy, host: str, tmp_path: Path) -> None:
    assert write_resources(tmp_path, policy, port=8000, pods=(9001,)) == host
    assert not (tmp_path / "policy.yaml").exists()


@pytest.mark.parametrize(
    ("first", "whole", "expected"),
    [(1.0, 3.0, True), (1.001, 1.5, False), (0.1, 2.1, True), (0.1, 2.2, False)],
)
def test_goodput_needs_both_the_first_token_and_the_others_in_time(first: float, whole: float, expected: bool) -> None:
    assert is_good(_request(first=first, whole=whole)) is expected


def test_warm_up_does_not_count() -> None:
    found = figures([_request(sent=11.9, first=9.0), _request(sent=12.0)], warm_up=12, patience=60)
    assert found is not None
    assert (found.requests, found.first_p90, found.hit_share) == (1, 0.5, 0.8)


def test_failed_request_counts_as_one_that_took_all_the_time() -> None:
    failed = Request(sent=20.0, late=0.0, status=503)
    found = figures([_request(), failed], warm_up=12, patience=60)
    assert found is not None
    assert (found.requests, found.failed, found.goodput, found.first_p50) == (2, 1, 0.5, 30.25)
    assert found.by_pod == {"pod-1": 1}


def test_run_without_counted_requests_has_no_figures() -> None:
    assert figures([_request(sent=3.0)], warm_up=12, patience=60) is None


def test_idle_time_is_not_busy() -> None:
    assert parse_busy("cpu  10 20 30 4000 500 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n") == 10 + 20 + 30 + 6 + 7 + 8


def test_what_is_not_a_part_is_others() -> None:
    used = {Part.PODS: 1.0, Part.NGINX: 0.5, Part.PICKER: 0.25, Part.LOAD: 0.25}
    shares = between(Moment(0, dict.fromkeys(Part, 0.0), 0), Moment(10, used, 5.0), processors=2)
    assert shares.parts[Part.PODS] == pytest.approx(0.1)
    assert shares.others == pytest.approx(0.3)
    assert shares.busy == pytest.approx(0.25)


def test_pods_that_are_late_make_figures_worthless() -> None:
    shares = Shares(parts=dict.fromkeys(Part, 0.1), others=1.6, busy=1.0)
    assert strain(shares, Lateness(pods=0.005, load=0.005)) == ()
    assert strain(shares, Lateness(pods=0.012, load=0.005)) == ("pods 12 ms late",)


def test_process_that_is_full_makes_figures_worthless() -> None:
    shares = Shares(parts={**dict.fromkeys(Part, 0.1), Part.PICKER: 0.9}, others=0.0, busy=0.6)
    assert strain(shares, Lateness(pods=0, load=0)) == ("picker 90% of a processor",)


async def test_blocked_loop_is_late() -> None:
    timer = Timer()
    timer.start()
    await asyncio.sleep(0.03)
    on_time = timer.p99()
    time.sleep(0.06)  # noqa: ASYNC251 - that it blocks is the point
    await asyncio.sleep(0.03)
    timer.stop()
    assert on_time < timer.p99()
    assert timer.p99() > 0.02


def test_bars_of_the_default_in_pairs_with_the_same_seed() -> None:
    runs = [
        *(_run("hot44", Policy.DEFAULT, seed=seed, p90=0.1 * seed) for seed in (1, 2, 3)),
        *(_run("hot44", Policy.PREFIX_AFFINITY, seed=seed, p90=1.0 * seed, goodput=0.7) for seed in (1, 2, 3)),
    ]
    found = {bar.what: (round(bar.value, 9), verdict(bar)) for bar in bars(contests(runs))}
    assert found == {
        "hot44: p90 of default to default": (1.0, "within"),
        "hot44: p90 of default to affinity": (0.1, "within"),
        "hot44: goodput of default below best": (0.0, "within"),
    }


def test_default_that_is_worse_than_another_policy_is_over_the_bar() -> None:
    runs = [
        _run("high", Policy.DEFAULT, seed=1, p90=0.24, goodput=0.97),
        _run("high", Policy.REFERENCE, seed=1, p90=0.2, goodput=0.99),
        _run("high", Policy.REFERENCE, seed=2, p90=0.01, goodput=0.5),
    ]
    values = [(bar.what, round(bar.value, 9), verdict(bar)) for bar in bars(contests(runs))]
    assert values == [
        ("high: p90 of default to reference", 1.2, "over the bar"),
        ("high: goodput of default below best", 0.02, "over the bar"),
    ]


def test_default_alone_is_compared_with_nothing() -> None:
    assert bars(contests([_run("high", Policy.DEFAULT, seed=1, p90=0.2)])) == ()


def test_what_has_not_been_run_is_named() -> None:
    runs = [_run("high", policy, seed=1, p90=0.2) for policy in Policy if policy is not Policy.REFERENCE]
    lacking = missing(contests(runs), seeds=1)
    assert lacking[:2] == ("high: reference", "hot44: all policies")


def test_tables_have_a_row_for_each_policy_with_its_median() -> None:
    found = contests([_run("high", Policy.DEFAULT, seed=seed, p90=p90) for seed, p90 in enumerate((0.1, 0.3, 0.2))])
    assert [row[:5] for row in figures_table(found).rows] == [("high", "default", "3", "0.050", "0.200")]
    assert [row[:3] for row in shares_table(found).rows] == [("high", "default", "0.10")]


def test_run_takes_the_place_of_one_with_the_same_plan_and_code(tmp_path: Path) -> None:
    results = Results(tmp_path / "bench" / "picking.json")
    for p90 in (0.2, 0.3):
        results.add(_run("high", Policy.DEFAULT, seed=1, p90=p90))
    results.add(_run("high", Policy.DEFAULT, seed=1, p90=0.4, version="older"))
    assert [(run.version, run.figures.first_p90) for run in results.runs()] == [("newer", 0.3), ("older", 0.4)]


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picking.json").write_text('{"benchmark": "memory"}')
    with pytest.raises(CannotMeasure, match="delete it"):
        Results(tmp_path / "picking.json").runs()


def test_run_on_a_busy_machine_is_not_done() -> None:
    plan = Plan("high", Policy.DEFAULT, 1)
    sound = _run("high", Policy.DEFAULT, seed=1, p90=0.2)
    strained = _run("high", Policy.DEFAULT, seed=1, p90=0.2, strain=("pods 30 ms late",))
    assert is_done(plan, [sound], version="newer")
    assert not is_done(plan, [sound], version="another")
    assert not is_done(plan, [strained], version="newer")


def test_of_all_versions_the_last_run_is_shown() -> None:
    runs = [
        _run("high", Policy.DEFAULT, seed=1, p90=0.2, version="older", ended="2026-01-01T00:00:00Z"),
        _run("high", Policy.DEFAULT, seed=1, p90=0.1, version="newer", ended="2026-01-02T00:00:00Z"),
    ]
    assert [run.version for run in of_version(runs, None)] == ["newer"]
    assert [run.version for run in of_version(runs, "older")] == ["older"]


def test_version_follows_what_is_measured_and_not_what_shows_it(tmp_path: Path) -> None:
    rule, table = tmp_path / "controller/picker/rule.py", tmp_path / "tools/bench/picking/comparison.py"
    for path in (rule, table):
        path.parent.mkdir(parents=True)
        path.write_text("")
    before = code_version(tmp_path)
    table.write_text("# shown")
    assert code_version(tmp_path) == before
    rule.write_text("# changed")
    assert code_version(tmp_path) != before


async def test_turn_carries_the_answers_before_it() -> None:
    sent, bodies = await _play([_session("one", "two")], _stream("an ", "answer"))
    assert [[message["content"] for message in body["messages"]] for body in bodies] == [
        ["system", "one"],
        ["system", "one", "an answer", "two"],
    ]
    request = sent.requests[0]
    assert (request.pod, request.prompt_tokens, request.cached_tokens, request.answer_tokens) == ("pod-3", 20, 16, 2)
    assert 0 < request.first <= request.whole


async def test_session_ends_with_an_answer_that_fails() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"
    sent, bodies = await _play([_session("one", "two")], refusal)
    assert [request.status for request in sent.requests] == [503]
    assert len(bodies) == 1


async def test_answer_that_breaks_off_is_a_failure() -> None:
    sent, _ = await _play([_session("one")], _stream("an ", "answer")[:-40], closes=True)
    assert [request.status for request in sent.requests] == [0]


async def test_answer_without_end_is_given_up() -> None:
    sent, _ = await _play([_session("one")], _stream("an ", "answer")[:-40])
    assert [request.status for request in sent.requests] == [0]


def test_pods_answer_with_their_name_and_say_how_late_they_were() -> None:
    with running_pods(pods_of(SCENARIOS["high"], seed=1)) as pods:
        sent = asyncio.run(_play_on(pods.ports[2], [_session("one")]))
    assert [request.pod for request in sent.requests] == ["pod-2"]
    assert 0 <= pods.lateness_p99 < 1


@pytest.mark.nginx
def test_short_run_through_the_gateway_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find(environment=os.environ)
    except NginxMissing as error:
        pytest.skip(str(error))
    arguments = ["--quick", "--scenario", "hot44", "--policy", "least-in-flight", "--output", str(tmp_path)]
    assert main(arguments) == 0
    run = Results(tmp_path / "picking-quick.json").runs()[0]
    assert run.figures.requests > 20
    assert run.figures.failed == 0
    assert run.figures.hit_share > 0
    assert len(run.figures.by_pod) == 6
    assert min(run.shares.parts.values()) > 0
    assert "hot44 least-in-flight seed 1: p50" in capsys.readouterr().out
    assert main([*arguments, "--table"]) == 0
    assert run.version in capsys.readouterr().out


def test_scenario_that_there_is_not_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--scenario", "cold"])
    assert "'hot44'" in capsys.readouterr().err


def test_table_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", "--output", str(tmp_path)]) == 0
    assert "has no runs" in capsys.readouterr().out


def _request(*, sent: float = 13.0, first: float = 0.5, whole: float = 1.5) -> Request:
    return msgspec.structs.replace(GOOD, sent=sent, first=first, whole=whole)


def _run(
    scenario: str,
    policy: Policy,
    *,
    seed: int,
    p90: float,
    goodput: float = 1.0,
    version: str = "newer",
    ended: str = "2026-01-01T00:00:00Z",
    strain: tuple[str, ...] = (),
) -> Run:
    return Run(
        scenario=scenario,
        policy=policy,
        seed=seed,
        version=version,
        time=ended,
        seconds=34.0,
        figures=Figures(
            requests=500,
            failed=0,
            first_p50=0.05,
            first_p90=p90,
            token_p90=0.02,
            goodput=goodput,
            hit_share=0.9,
            late_p99=0.001,
            by_pod={"pod-0": 500},
        ),
        shares=Shares(parts=dict.fromkeys(Part, 0.1), others=0.2, busy=0.3),
        lateness=Lateness(pods=0.001, load=0.001),
        load_average=0.5,
        strain=strain,
    )


def _session(*texts: str) -> Session:
    return Session(begins=0.0, model="simulated", system="system", turns=tuple(Turn(0.0, text) for text in texts))


def _stream(*words: str) -> bytes:
    """An answer as the simulator streams it."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    usage = {"prompt_tokens": 20, "completion_tokens": len(words), "prompt_tokens_details": {"cached_tokens": 16}}
    events.append({"choices": [], "usage": usage})
    lines = [json.dumps(event, separators=(",", ":")) for event in events]
    pieces = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
    head = b"HTTP/1.1 200 OK\r\nX-Simulated-Pod: pod-3\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(pieces), pieces)


async def _play(todo: Sequence[Session], answer: bytes, *, closes: bool = False) -> tuple[Sent, list[dict[str, Any]]]:
    """Sessions against a server that answers every request alike, and the bodies that it got."""
    bodies: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                bodies.append(json.loads(await reader.readexactly(length)))
                writer.write(answer)
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        sent = await _play_on(server.sockets[0].getsockname()[1], todo)
    return sent, bodies


async def _play_on(port: int, todo: Sequence[Session]) -> Sent:
    job = Job(scenario="high", seed=1, seconds=1.0, patience=0.2, port=port, host="a.example")
    scenario = Scenario(rate=1, turns=2, user_tokens=1, answer_tokens=2, groups=Groups(1, 1.0, 2))
    return await load_process.play(job, scenario, todo)
