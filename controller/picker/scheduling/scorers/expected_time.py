"""The default rule: the expected time to the first token, and the harm done to those who run there.

A request costs an endpoint the work that stands before it, its own uncached tokens, which are charged more the more
requests they would hold up, and a little for each neighbour that slows its decoding. So an endpoint with much to do
keeps what it has cached and takes nothing new, and an idle one is cheap to warm: a prefix that is hotter than one
endpoint spreads before a queue forms.

Everything is counted in bytes of prompt that are not cached; learned rates turn them into seconds. Source of the rule
and its constants: simulations of 44 scenarios against the policies of ten routers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint
from controller.picker.rates import Rates
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.matching import matched_chunks

NEIGHBOUR_SHARE: Final = 0.01
"""Of the mean residence that each request in flight there costs."""


@dataclass(frozen=True)
class ExpectedTimeScorer:
    """1 / (1 + expected seconds)."""

    surroundings: Surroundings
    harm: float = 0.3
    """Of its own work that a request is charged for each request it would hold up. .1 to .45 is within 4 %."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        rates = self.surroundings.memory.rates
        matched = matched_chunks(request, endpoints)
        costs = self._costs(request, endpoints, matched, oldest=now - self.surroundings.staleness)
        if self.surroundings.replicas and request.hashes:
            _agree(request, endpoints, matched, costs, share=rates.matched_share)
        second = BYTES_PER_TOKEN / rates.seconds_per_token
        return [second / (second + cost) for cost in costs]

    def terms(
        self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float], *, now: float
    ) -> Sequence[Mapping[str, float]]:
        """The expected seconds of each endpoint in parts, for a reader; they add up to what the score is made of.

        The same formula as `_costs`, whose loop is too hot to keep its parts.
        """
        rates = self.surroundings.memory.rates
        matched = matched_chunks(request, endpoints)
        found = []
        for endpoint, chunks, score in zip(endpoints, matched, scores, strict=True):
            count = len(endpoint.open)
            if endpoint.answered_at >= now - self.surroundings.staleness and not self.surroundings.replicas:
                count += endpoint.foreign
            own = request.prompt_bytes - OFFSETS[chunks]
            parts = {
                "backlog": _seconds(endpoint.backlog, rates),
                "own": _seconds(own, rates),
                "harm": _seconds(own * self.harm * count, rates),
                "neighbours": NEIGHBOUR_SHARE * rates.residence * count,
            }
            if count >= endpoint.slots:
                parts["slot"] = rates.residence / endpoint.slots * (count + 1 - endpoint.slots)
            if request.adapter and request.adapter not in endpoint.adapters:
                harm = 1.0 + self.harm * count
                residence = rates.residence / rates.seconds_per_token * BYTES_PER_TOKEN
                parts["adapter"] = _seconds(_loading(endpoint, rates, harm=harm, residence=residence), rates)
            parts = {name: part * endpoint.pace for name, part in parts.items()}
            if self.surroundings.replicas:
                parts["agreed"] = min(0.0, 1.0 / score - 1.0 - sum(parts.values()))
            found.append(parts)
        return found

    def _costs(
        self, request: PickRequest, endpoints: Sequence[Endpoint], matched: Sequence[int], *, oldest: float
    ) -> list[float]:
        """What a request costs at each endpoint, in bytes to be computed."""
        rates = self.surroundings.memory.rates
        counts_others = not self.surroundings.replicas
        residence = rates.residence / rates.seconds_per_token * BYTES_PER_TOKEN
        neighbour = NEIGHBOUR_SHARE * residence
        size = request.prompt_bytes
        harm = self.harm
        adapter = request.adapter
        offsets = OFFSETS
        before = -1
        own = burden = 0.0
        costs: list[float] = []
        for place, endpoint in enumerate(endpoints):
            chunks = matched[place]
            if chunks != before:
                # Most have as much of the prompt as the one before.
                before = chunks
                own = size - offsets[chunks]
                burden = harm * own + neighbour
            count = len(endpoint.open)
            if endpoint.is_ordinary and not adapter:
                costs.append(endpoint.backlog + own + burden * count if count else endpoint.backlog + own)
                continue
            if endpoint.foreign and counts_others and endpoint.answered_at >= oldest:
                # From elsewhere than a gateway, which is not foreseen by the rule: they hold a slot like any other.
                count += endpoint.foreign
            cost: float = endpoint.backlog + own + burden * count
            if count >= endpoint.slots:
                cost += residence / endpoint.slots * (count + 1 - endpoint.slots)
            if adapter and adapter not in endpoint.adapters:
                cost += _loading(endpoint, rates, harm=1.0 + harm * count, residence=residence)
            costs.append(cost * endpoint.pace)
        return costs


def _seconds(size: float, rates: Rates) -> float:
    """Seconds that it takes to compute so many bytes."""
    return size / BYTES_PER_TOKEN * rates.seconds_per_token


def _loading(endpoint: Endpoint, rates: Rates, *, harm: float, residence: float) -> float:
    """What it costs to load an adapter: a stall for those who run there, as a prompt is."""
    load = rates.adapter_load / rates.seconds_per_token * BYTES_PER_TOKEN
    cost = load * harm
    if len(endpoint.adapters) >= endpoint.max_adapters:
        # The one that it displaces must be loaded again.
        cost += load
    if len(endpoint.adapters_in_use) >= endpoint.max_adapters:
        # It must wait until one is not in use.
        cost += residence
    return cost


def _agree(
    request: PickRequest, endpoints: Sequence[Endpoint], matched: Sequence[int], costs: list[float], *, share: float
) -> None:
    """Make the endpoint cheapest on which replicas of the gateway agree without talking, if it costs little more.

    Among endpoints about as good as the best it is the one that the first chunk nobody has is hashed to.
    """
    longest = max(matched)
    if longest == len(request.hashes):
        return
    least = min(costs)
    best = costs.index(least)
    window = share * (request.prompt_bytes - OFFSETS[matched[best]]) * endpoints[best].slowness
    novel = request.hashes[longest]
    near = [position for position, cost in enumerate(costs) if cost <= least + window]
    agreed = max(near, key=lambda position: xxhash.xxh3_64_intdigest(endpoints[position].address.encode(), novel))
    costs[agreed] = least * (1.0 - 1e-9)
