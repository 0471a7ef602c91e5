"""Counts are never negative, and zero at rest, in whatever order things happen."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.picker.inflight import SHORT_SCRAPES
from controller.picker.overdue import miss_overdue

from .conftest import Picker

NAMES = "abc"
ids = st.integers(0, 9).map(str)
names = st.sampled_from(NAMES)


class Counts(RuleBasedStateMachine):
    """Everything that can happen to a few requests and endpoints, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.picker = Picker()
        self.served = NAMES
        self.uid = 1
        self.serve()

    def serve(self) -> None:
        self.picker.serve(*self.served, uid=str(self.uid))
        for endpoint in self.picker.table.endpoints:
            endpoint.read_nothing(endpoint.metrics, now=self.picker.clock())

    @rule(request=ids, letter=st.sampled_from("xyz"), streamed=st.booleans(), adapter=st.sampled_from(["", "l", "m"]))
    def pick(self, request: str, letter: str, streamed: bool, adapter: str) -> None:
        for pool in self.picker.table.pools.values():
            pool.memory.adapters = {"l", "m"}
        self.picker.pick(request, prompt=letter.encode() * 1000, is_streamed=streamed, model=adapter)

    @rule(request=ids, name=names, how=st.sampled_from(["unreachable", "closed", "timeout", "failed"]))
    def retry(self, request: str, name: str, how: str) -> None:
        self.picker.pick(request, tried=f"{name}:8000={how};", prompt=b"x" * 1000, is_streamed=True)

    @rule(request=ids, waited=st.floats(0, 100))
    def first_byte(self, request: str, waited: float) -> None:
        self.picker.first_byte(request, waited)

    @rule(request=ids, name=st.sampled_from(["", *NAMES]), status=st.sampled_from([200, 400, 499, 500, 503]))
    def complete(self, request: str, name: str, status: int) -> None:
        self.picker.complete(request, endpoint=name, status=status, upstream_status=f"200 : {status}")

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.picker.clock.pass_(seconds)
        self.picker.in_flight.settle(self.picker.clock())
        for endpoint in self.picker.table.endpoints:
            miss_overdue(endpoint, now=self.picker.clock())

    @rule(served=st.sets(names))
    def change_the_pool(self, served: set[str]) -> None:
        self.served = "".join(sorted(served))
        self.serve()

    @rule()
    def replace_all_pods(self) -> None:
        self.uid += 1
        self.serve()

    @rule(reported=st.integers(0, 5))
    def scrape(self, reported: int) -> None:
        for endpoint in self.picker.table.endpoints:
            self.picker.clock.pass_(1)
            self.picker.in_flight.compare(endpoint, reported=reported, scraped_at=self.picker.clock())

    @invariant()
    def counts_are_those_of_the_requests_in_flight(self) -> None:
        for endpoint in self.picker.table.endpoints:
            sent = list(endpoint.open.values())
            assert endpoint.backlog == sum(one.size for one in sent if one.is_pending) >= 0
            assert endpoint.tokens == sum(one.prompt_bytes // 4 for one in sent)
            assert sum(endpoint.adapters_in_use.values()) == sum(bool(one.adapter) for one in sent)
            assert all(count > 0 for count in endpoint.adapters_in_use.values())
        assert len(self.picker.in_flight) == sum(len(endpoint.open) for endpoint in self.picker.table.endpoints)

    def teardown(self) -> None:
        # All ends were lost: what the pods report finds them.
        for _ in range(2 * SHORT_SCRAPES):
            self.scrape(0)
        for endpoint in self.picker.table.endpoints:
            assert (len(endpoint.open), endpoint.backlog, endpoint.tokens) == (0, 0, 0)
            assert endpoint.adapters_in_use == {}
        assert len(self.picker.in_flight) == 0


Counts.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_counts_hold_in_any_order = Counts.TestCase
