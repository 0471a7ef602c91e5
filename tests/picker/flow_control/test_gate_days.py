"""Simulated days before one gate: whatever comes in whatever order, what is promised holds after every event."""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controller.picker.flow_control.gate import Gate, Step
from controller.picker.flow_control.refusals import Drop
from controller.picker.flow_control.settings import LONGEST_WAIT
from controller.picker.flow_control.tickets import Stage, Ticket, Waiting

from .conftest import Pod, Pods, policy_of, ticket, waiting_of

SLOTS = 3
TTL = 20.0
NO_ENDPOINT_TTL = 30.0
BAND = {"maxRequests": 6, "maxBytes": 600}
TOTAL = {"maxRequests": 10, "maxBytes": 900}


class GateDays(RuleBasedStateMachine):
    """Arrivals, completions, hang-ups, pods that come and go, and tasks that are slow to take what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pods = Pods([Pod()])
        self.waiting: list[Waiting] = []
        self.granted: list[Waiting] = []
        self.asked = 0
        self.ends: Counter[str] = Counter()
        """Ends by request."""

        self.had_pods = True
        self.regime_since = 0.0
        """When the pool got its first endpoint or lost its last."""

    @initialize(
        ordering=st.sampled_from(["fcfs-ordering-policy", "edf-ordering-policy", "slo-deadline-ordering-policy"]),
        fairness=st.sampled_from(["round-robin-fairness-policy", "global-strict-fairness-policy"]),
    )
    def open(self, ordering: str, fairness: str) -> None:
        self.is_fcfs = ordering.startswith("fcfs")
        band = {**BAND, "orderingPolicyRef": ordering, "fairnessPolicyRef": fairness}
        policy = policy_of(
            slots=SLOTS,
            maxRequests=TOTAL["maxRequests"],
            maxBytes=TOTAL["maxBytes"],
            defaultRequestTTL=TTL,
            noEndpointRequestTTL=NO_ENDPOINT_TTL,
            defaultPriorityBand=band,
            defaultNegativePriorityBand=band,
            priorityBands=[{"priority": 2}],
        )
        self.gate = Gate(policy, self.pods.loads)

    @rule(
        priority=st.integers(-2, 4),
        tenant=st.sampled_from("abc"),
        size=st.sampled_from([0, 50, 100, 400, 700]),
        ttl=st.sampled_from([None, None, 5.0]),
        due=st.sampled_from([None, 1.0, 9.0]),
    )
    def arrive(self, priority: int, tenant: str, size: int, ttl: float | None, due: float | None) -> None:
        one = ticket(priority, tenant=tenant, size=size, ttl=ttl, due=due)
        self.asked += 1
        if self.gate.takes(one.priority, tokens=one.tokens, now=self.now):
            assert not any(other.priority >= priority for other in self.waiting)
            self._run(one)
            return
        waiting = waiting_of(one, self.now)
        entered = self.gate.enter(waiting, now=self.now)
        if isinstance(entered, Drop):
            self.ends[one.id] += 1
            return
        self.waiting.append(waiting)
        for victim, drop in entered:
            assert drop is Drop.CROWDED_OUT or victim.band < waiting.band
            self._end(victim)

    @rule(which=st.integers(0, 100))
    def complete(self, which: int) -> None:
        busy = [pod for pod in self.pods.pods if pod.requests]
        if busy:
            busy[which % len(busy)].requests.pop()
            self.step()

    @rule(which=st.integers(0, 100))
    def hang_up(self, which: int) -> None:
        everybody = self.waiting + self.granted
        if everybody:
            one = everybody[which % len(everybody)]
            was_granted = one in self.granted
            assert self.gate.withdraw(one, now=self.now) == was_granted
            assert not self.gate.withdraw(one, now=self.now)
            if was_granted:
                self.granted.remove(one)
                self.ends[one.id] += 1
            else:
                self._end(one)

    @rule(count=st.integers(0, 3))
    def scale(self, count: int) -> None:
        del self.pods.pods[count:]
        self.pods.pods.extend(Pod() for _ in range(count - len(self.pods.pods)))
        self.step()

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 10.0, 90.0]))
    def pass_(self, seconds: float) -> None:
        """Time passes as the timer lets it: with a look at every expiry."""
        until = self.now + seconds
        while (expiry := self.gate.queue.next_expiry()) is not None and expiry <= until:
            self.now = max(self.now, expiry)
            self.step()
        self.now = until
        self.step()

    @rule()
    def resume(self) -> None:
        """A task that was released runs, and picks."""
        if self.granted:
            one = self.granted.pop(0)
            self.gate.resumed(one, now=self.now)
            if self.pods.pods:
                self.pods.pick()
            self.ends[one.id] += 1

    def step(self) -> None:
        if self.had_pods != bool(self.pods.pods):
            self.had_pods = not self.had_pods
            self.regime_since = self.now
        limit = TTL if self.had_pods else NO_ENDPOINT_TTL
        self.gate.changed()
        step: Step = self.gate.step(self.now)
        for waiting, drop in step.dropped:
            assert drop in (Drop.TTL, Drop.NO_ENDPOINTS_TTL)
            self._end(waiting)
        for waiting in step.released:
            self.waiting.remove(waiting)
            self.granted.append(waiting)
        if step.released:
            assert self.pods.in_flight + self.gate.granted <= SLOTS * len(self.pods.pods)
        for waiting in self.waiting:
            assert self.now - waiting.entered < LONGEST_WAIT
            assert self.now - max(waiting.entered, self.regime_since) < min(limit, waiting.ttl)
            assert waiting.expires > self.now
            for other in step.released:
                assert other.band >= waiting.band
                if self.is_fcfs and (other.band, other.tenant) == (waiting.band, waiting.tenant):
                    assert other.number < waiting.number

    @invariant()
    def bounds_hold_and_counts_are_those_of_the_model(self) -> None:
        if not hasattr(self, "gate"):
            return
        queue = self.gate.queue
        assert (queue.count, queue.size) == (len(self.waiting), sum(one.size for one in self.waiting))
        assert queue.count <= TOTAL["maxRequests"]
        assert queue.size <= TOTAL["maxBytes"]
        for band in queue.bands:
            mine = [one for one in self.waiting if one.band == band.priority]
            assert (band.count, band.size) == (len(mine), sum(one.size for one in mine))
            assert band.count <= BAND["maxRequests"]
            assert band.size <= BAND["maxBytes"]
            assert mine or band.is_configured
        assert self.gate.granted == len(self.granted)
        assert all(one.stage is Stage.WAITING for one in self.waiting)
        assert set(self.ends.values()) <= {1}
        assert self.asked == len(self.ends) + len(self.waiting) + len(self.granted)

    def teardown(self) -> None:
        """When all clients are served, nothing is left."""
        if not hasattr(self, "gate"):
            return
        self.scale(1)
        while self.waiting or self.granted:
            self.pods.pods[0].requests.clear()
            while self.granted:
                self.resume()
            self.step()
        queue = self.gate.queue
        assert (queue.count, queue.size, self.gate.granted) == (0, 0, 0)
        assert [band.priority for band in queue.bands] == [2]
        assert queue.next_expiry() is None
        assert sum(self.gate.counts.by_outcome().values()) == self.asked

    def _run(self, one: Ticket) -> None:
        assert self.pods.in_flight + self.gate.granted < SLOTS * len(self.pods.pods)
        self.pods.pick()
        self.ends[one.id] += 1

    def _end(self, waiting: Waiting) -> None:
        assert waiting.stage is Stage.ENDED
        self.waiting.remove(waiting)
        self.ends[waiting.id] += 1


GateDays.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_simulated_days_before_a_gate = GateDays.TestCase
