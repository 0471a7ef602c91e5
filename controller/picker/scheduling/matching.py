"""How much of a prompt each endpoint has, computed once for all parts of a profile."""

from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Final

from controller.picker.endpoints import Endpoint
from controller.picker.prefix import longest_matches
from controller.picker.requests import PickRequest

_INDEX: Final = attrgetter("prefixes")


def matched_chunks(request: PickRequest, endpoints: Sequence[Endpoint]) -> list[int]:
    """How many of the prompt's chunks each endpoint has, in their order."""
    known = request.matched
    if known is not None and known[0] is endpoints:
        return known[1]
    matched = longest_matches(map(_INDEX, endpoints), request.hashes)
    request.matched = (endpoints, matched)
    return matched


def chunks_at(request: PickRequest, endpoint: Endpoint) -> int:
    """How many of the prompt's chunks one endpoint has."""
    known = request.matched
    if known is not None:
        with suppress(ValueError):
            return known[1][known[0].index(endpoint)]
    return endpoint.prefixes.match(request.hashes)
