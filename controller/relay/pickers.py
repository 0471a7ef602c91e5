"""External pickers: a link to each address, shared by all pools and requests."""

import asyncio
from collections.abc import Sequence

from controller.relay.errors import Fault, PickerFailed
from controller.relay.grpc import Call, Hearer
from controller.relay.links import MOST_CONNECTIONS, Link
from controller.relay.watching import Patience, Place


class Pickers:
    """Connections by place. Those that no pool names any more end with their last request."""

    def __init__(self, patience: Patience, *, most: int = MOST_CONNECTIONS) -> None:
        """`most` is how many connections there are to one picker at once."""
        self._patience = patience
        self._most = most
        self._links: dict[Place, Link] = {}

    async def call(self, places: Sequence[Place], hearer: Hearer, *, refused: int = 0) -> Call:
        """Open a call to one of the places: those first that say they are well, then in order.

        After one was `refused`, begins at the next. Raises PickerFailed, also where none takes another stream in time.
        """
        links = [self._link(place) for place in places]
        if len(links) > 1:
            links.sort(key=lambda link: (link.is_failing, not link.is_serving, link.is_full))
            first = refused % len(links)
            links = [*links[first:], *links[:first]]
        reason = "its Service has no ready endpoint"
        try:
            async with asyncio.timeout(self._patience.answer):
                for link in links:
                    try:
                        return await link.call(hearer)
                    except PickerFailed as problem:
                        reason = str(problem)
        except TimeoutError as problem:
            raise PickerFailed("the picker takes no more streams", fault=Fault.LATE) from problem
        raise PickerFailed(reason, fault=Fault.UNREACHABLE)

    def keep(self, places: set[Place]) -> None:
        """Forget all others."""
        for place in self._links.keys() - places:
            self._links.pop(place).retire()

    def sweep(self) -> None:
        """Close connections that are needed no more."""
        now = asyncio.get_running_loop().time()
        for link in self._links.values():
            link.sweep(now)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()

    def states(self) -> list[dict[str, object]]:
        """What is known of each connection, for a reader."""
        return [link.state() for link in self._links.values()]

    def by_address(self) -> dict[str, list[Link]]:
        """Connections by the address of the picker, which several pools may know by different names; sorted."""
        found: dict[str, list[Link]] = {}
        for place in sorted(self._links, key=lambda place: place.address):
            found.setdefault(place.address, []).append(self._links[place])
        return found

    def _link(self, place: Place) -> Link:
        if place not in self._links:
            self._links[place] = Link(place, self._patience, most=self._most)
        return self._links[place]
