"""The queues of one band: whose turn it is, and who has most in the queue."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Protocol

from controller.picker.flow_control.orders import ByArrival, ByKey, Order
from controller.picker.flow_control.settings import BandSettings, Fairness, Ordering
from controller.picker.flow_control.tickets import Waiting


class Queues(Protocol):
    """Waiting requests of one band."""

    def add(self, waiting: Waiting) -> None:
        """Take one in."""
        ...

    def remove(self, waiting: Waiting, *, served: bool) -> None:
        """Let one go, which is no longer in the stage WAITING. `served` says that it had its turn."""
        ...

    def first(self) -> Waiting:
        """Whose turn it is; there is at least one."""
        ...

    def least_urgent(self) -> Waiting:
        """The last of the tenant with most; of several, of the one that came to have as many last."""
        ...

    def heavier_than(self, tenant: str) -> Waiting | None:
        """As above, if a tenant with one more request would still not have more than they; else None."""
        ...


def queues_of(settings: BandSettings) -> Queues:
    """The queues of a band without requests."""
    order: Callable[[], Order] = ByArrival if settings.ordering_policy_ref is Ordering.FCFS else ByKey
    if settings.fairness_policy_ref is Fairness.GLOBAL_STRICT:
        return OneQueue(order())
    return RoundRobinQueues(order)


class OneQueue:
    """One queue for all tenants."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def add(self, waiting: Waiting) -> None:
        """See `Queues`."""
        self._order.add(waiting)

    def remove(self, waiting: Waiting, *, served: bool) -> None:
        """See `Queues`."""
        self._order.remove(waiting)

    def first(self) -> Waiting:
        """See `Queues`."""
        return self._order.first()

    def least_urgent(self) -> Waiting:
        """The last to come."""
        return self._order.last()

    def heavier_than(self, tenant: str) -> Waiting | None:
        """None: nobody's requests are told apart."""
        return None


class RoundRobinQueues:
    """One queue for each tenant that has requests waiting, served in turn. A tenant that comes goes last."""

    def __init__(self, order: Callable[[], Order]) -> None:
        self._order = order
        self._queues: OrderedDict[str, Order] = OrderedDict()
        """In the order of their turns."""
        self._by_length: defaultdict[int, OrderedDict[str, None]] = defaultdict(OrderedDict)
        """Tenants by how many of their requests wait, the one that came to have as many last at the end."""
        self._longest = 0

    def add(self, waiting: Waiting) -> None:
        """See `Queues`."""
        queue = self._queues.get(waiting.tenant)
        if queue is None:
            queue = self._queues[waiting.tenant] = self._order()
        queue.add(waiting)
        self._resize(waiting.tenant, len(queue) - 1, len(queue))

    def remove(self, waiting: Waiting, *, served: bool) -> None:
        """See `Queues`."""
        queue = self._queues[waiting.tenant]
        queue.remove(waiting)
        self._resize(waiting.tenant, len(queue) + 1, len(queue))
        if not queue:
            del self._queues[waiting.tenant]
        elif served:
            self._queues.move_to_end(waiting.tenant)

    def first(self) -> Waiting:
        """See `Queues`."""
        return next(iter(self._queues.values())).first()

    def least_urgent(self) -> Waiting:
        """See `Queues`."""
        return self._queues[next(reversed(self._by_length[self._longest]))].last()

    def heavier_than(self, tenant: str) -> Waiting | None:
        """See `Queues`."""
        queue = self._queues.get(tenant)
        return self.least_urgent() if self._longest > (len(queue) if queue else 0) + 1 else None

    def _resize(self, tenant: str, before: int, after: int) -> None:
        """Lengths change by one, so the longest is found without a search."""
        if before:
            same = self._by_length[before]
            del same[tenant]
            if not same:
                del self._by_length[before]
        if after:
            self._by_length[after][tenant] = None
        self._longest = max(self._longest, after)
        if before == self._longest and before not in self._by_length:
            self._longest = after
