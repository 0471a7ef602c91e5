"""Traces: what a picker records, and what another policy makes of it."""

import asyncio
import io
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import InputUnreadable, SettingInvalid
from controller.headers import ENDPOINT_HEADER
from controller.picker.answers import Refusal
from controller.picker.health import Failure
from controller.picker.replay.command import replay
from controller.picker.replay.events import Opened, Picked, Served, encoded, events_in
from controller.picker.replay.player import Player
from controller.picker.replay.policy import policy_in
from controller.picker.replay.recorder import Recorder, open_recorder
from controller.picker.replay.tally import Tally
from controller.picker.watch import DEFAULT_WATCH
from controller.plugins.catalogue import BUILT_IN
from controller.plugins.types import AppliedPolicy, ConfiguredPlugin, Scheduling

from .conftest import Clock, Picker, completion_line, request_of
from .test_app import running_picker

AT_RANDOM = AppliedPolicy(
    scheduling=Scheduling(
        filters=(ConfiguredPlugin("healthy-filter", "healthy-filter"),),
        scorers=(),
        picker=ConfiguredPlugin("random-picker", "random-picker"),
    )
)


class Kept(io.BytesIO):
    """A file that can be read when it is closed."""

    kept = b""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


class Recording:
    """A picker that is recorded."""

    def __init__(self, *endpoints: str) -> None:
        self.picker = Picker()
        self.file = Kept()
        opened = Opened(at=0.0, version=1, staleness=DEFAULT_WATCH.staleness, seed=1)
        self.recorder = Recorder(self.file, limit=10_000_000, clock=self.picker.clock, opened=opened)
        self.picker.serve(*endpoints)
        served = self.picker.table.served
        assert served is not None
        self.recorder.pools(served.pools)

    def pick(self, request: str, prompt: bytes = b"", *, tried: str = "") -> str:
        """The address that was chosen; empty for a refusal."""
        asked = request_of(request, prompt=prompt, tried=tried, is_streamed=True)
        picked = self.picker.director.pick(asked)
        self.recorder.picked(asked, picked)
        return "" if isinstance(picked, Refusal) else picked[0].address

    def begin(self, line: bytes) -> None:
        self.picker.completions.take_first_bytes(line, now=self.picker.clock())
        self.recorder.began(line)

    def tell(self, line: bytes) -> None:
        self.picker.completions.take(line, now=self.picker.clock())
        self.recorder.ended(line)

    def read(self, name: str, **told: int) -> None:
        self.picker.read(name, **told)
        self.recorder.look(self.picker.table.endpoints)

    def played(self, policy: AppliedPolicy | None = None) -> Tally:
        """What a replay counts of the pool."""
        self.recorder.close()
        player = Player(BUILT_IN, policy)
        for event in events_in(self.file.kept.splitlines(keepends=True)):
            player.take(event)
        return player.tallies["llm/gpu"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["pick", "begin", "end", "read", "wait"]), st.integers(0, 9), st.integers(0, 4000)),
    max_size=60,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_same_policy_chooses_the_same(steps: list[tuple[str, int, int]]) -> None:
    recording = Recording("a", "b", "c")
    open_: list[tuple[str, str]] = []
    for number, (step, kind, size) in enumerate(steps):
        recording.picker.clock.pass_(0.05)
        if step == "pick":
            address = recording.pick(str(number), b"%d" % kind * size)
            open_.append((str(number), address))
        elif step == "read":
            recording.read("abc"[kind % 3], running=kind, waiting=size % 3, blocks=100, block_size=16)
        elif step == "wait":
            recording.picker.clock.pass_(float(kind))
        elif open_ and step == "begin":
            recording.begin(b'{"id":"%b","waited":0.%04d}' % (open_[kind % len(open_)][0].encode(), size))
        elif open_:
            request, address = open_.pop(kind % len(open_))
            recording.tell(completion_line(request, endpoint=address, duration=size / 1000))
    tally = recording.played() if any(step == "pick" for step, _, _ in steps) else Tally()
    assert tally.changed == 0
    assert (tally.recorded.picks, tally.recorded.uncached) == (tally.replayed.picks, tally.replayed.uncached)


def test_policy_that_forgets_prefixes_hits_less() -> None:
    recording = Recording("a", "b", "c", "d")
    for number in range(200):
        prompt = b"%d" % (number % 8) * 4096
        address = recording.pick(str(number), prompt)
        recording.picker.clock.pass_(0.1)
        recording.tell(completion_line(str(number), endpoint=address, duration=0.1))
        recording.picker.clock.pass_(0.1)
    tally = recording.played(AT_RANDOM)
    assert tally.recorded.hit_share > tally.replayed.hit_share + 0.05
    assert 100 < tally.changed < tally.requests == 200
    assert tally.recorded.picks.total() == tally.replayed.picks.total() == 200
    assert 1 <= tally.imbalance(tally.replayed.picks) < 2


def test_request_that_went_elsewhere_is_in_flight_until_its_end() -> None:
    recording = Recording("a", "b")
    addresses = {str(number): recording.pick(str(number)) for number in range(20)}
    for request, address in addresses.items():
        recording.tell(completion_line(request, endpoint=address))
    recording.recorder.close()
    player = Player(BUILT_IN, AT_RANDOM)
    counts = []
    for event in events_in(recording.file.kept.splitlines(keepends=True)):
        player.take(event)
        counts.append(len(player._in_flight))
    assert max(counts) == 20
    assert counts[-1] == 0


def test_failed_try_counts_where_it_was_chosen_only() -> None:
    recording = Recording("a", "b")
    first = recording.pick("1")
    second = recording.pick("1", tried=f"{first}=closed;")
    assert second != first
    same = recording.played()
    assert (same.requests, same.changed) == (1, 0)
    assert same.replayed.picks == {first: 1}


def test_trace_holds_no_prompt_and_ends_at_its_limit(tmp_path: Path) -> None:
    clock = Clock()
    opened = Opened(at=0.0, version=1, staleness=3.0)
    recorder = open_recorder(tmp_path / "trace", limit=2000, clock=clock, opened=opened)
    picker = Picker()
    picker.serve("a")
    for number in range(50):
        asked = request_of(str(number), prompt=b"secret" * 100)
        recorder.picked(asked, picker.director.pick(asked))
    recorder.look(picker.table.endpoints)
    written = (tmp_path / "trace").read_bytes()
    assert 1000 < len(written) <= 2000
    assert b"secret" not in written
    assert len(list(events_in(written.splitlines(keepends=True)))) > 3
    assert stat.S_IMODE((tmp_path / "trace").stat().st_mode) == 0o600


OPENED = encoded(Opened(at=0.0, version=1, staleness=3.0))
PICK = encoded(Picked(at=1.0, id="1", pool="llm/gpu", outcome="picked", tried=(("a:1", Failure.CLOSED),)))


def test_line_that_was_cut_off_is_left_out() -> None:
    assert len(list(events_in([OPENED, PICK, PICK[:20]]))) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "it is empty"),
        ([OPENED[:20]], "line 1: is no event"),
        ([b"nonsense"], "line 1: is no event"),
        ([PICK], "accepted is a trace of version 1"),
        ([encoded(Opened(at=0.0, version=2, staleness=3.0))], "accepted is a trace of version 1"),
        ([OPENED, b"nonsense\n"], "line 2: is no event"),
        ([OPENED, b'{"event":"pick","at":1}\n'], "line 2: is no event"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, lines: list[bytes], message: str) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(b"".join(lines))
    with pytest.raises(InputUnreadable, match=message):
        replay(trace, policy=None)


def test_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable, match="No such file"):
        replay(tmp_path / "trace", policy=None)


def test_trace_without_requests_is_a_table() -> None:
    player = Player(BUILT_IN)
    for event in (Opened(at=0.0, version=1, staleness=3.0), Served(at=0.1, pools=())):
        player.take(event)
    assert player.tallies == {}


POLICIES = [
    ("kind: PickerPolicy\nspec: {fallbacks: 2}", lambda policy: policy.fallbacks == 2 and policy.scheduling is None),
    (
        "kind: PickerPolicy\nspec: {config: {plugins: [{type: queue-scorer}]}}",
        lambda policy: policy.scheduling.scorers[0].type == "queue-scorer",
    ),
    (
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: random-picker}]",
        lambda policy: policy.scheduling.picker.type == "random-picker",
    ),
]


@pytest.mark.parametrize(("text", "is_so"), POLICIES)
def test_policy_of_a_file(tmp_path: Path, text: str, is_so: Callable[[AppliedPolicy], bool]) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    assert is_so(policy_in(tmp_path / "policy.yaml", catalogue=BUILT_IN))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Service", "found kind Service, accepted is"),
        ("- 1", "found kind None"),
        ("a: [", "while parsing"),
        ("kind: PickerPolicy", "spec: accepted is a mapping"),
        ("kind: PickerPolicy\nspec: {fallbacks: 3}", "found 3, accepted is 0 to 2"),
        ("kind: PickerPolicy\nspec: {config: {plugins: [{type: best-scorer}]}}", "best-scorer"),
    ],
)
def test_policy_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(SettingInvalid, match=message):
        policy_in(tmp_path / "policy.yaml", catalogue=BUILT_IN)


async def test_command_replays_what_a_picker_recorded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with running_picker(tmp_path, record=trace) as running:
        running.publish("127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1")
        await running.until(lambda view: view["pools"])
        for number in range(30):
            body = b'{"model":"m","prompt":"%b"}' % (b"secret %d " % (number % 3) * 300)
            picked = await running.pick(str(number), body=body)
            await running.complete(completion_line(str(number), endpoint=picked.headers[ENDPOINT_HEADER]))
    assert b"secret" not in trace.read_bytes()
    policy = tmp_path / "policy.yaml"
    policy.write_text("kind: PickerPolicy\nspec: {config: {plugins: [{type: random-picker}]}}")
    command = [sys.executable, "-m", "controller", "picker", "--replay", str(trace), "--policy", str(policy)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
    assert process.returncode == 0
    assert "pool llm/gpu: 30 requests, 3 endpoints" in told
    rows = {line[:34].strip(): line[34:].split() for line in told.splitlines() if line.startswith("  ")}
    assert rows[""] == ["recorded", "replayed"]
    recorded, replayed = (float(share.rstrip("%")) for share in rows["predicted hit share"])
    assert recorded > replayed > 0
    assert replay(trace, policy=None).split()[-2:] == ["0", "0.0%"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pools", "x"], "--socket, --pools and --completions are required"),
        (["--socket", "x", "--pools", "x", "--policy", "x"], "--policy goes with --replay"),
        (["--replay", "/nowhere/trace"], "infergate: /nowhere/trace: No such file or directory"),
    ],
)
def test_command_names_what_is_wrong(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "controller", "picker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
