"""How much of a prompt each endpoint has, computed once for all parts of a profile."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from controller.picker.endpoints import Endpoint
from controller.picker.prefix import add_answers, longest_matches
from controller.picker.requests import PickRequest

_INDEX: Final = attrgetter("prefixes")


def matched_chunks(request: PickRequest, endpoints: Sequence[Endpoint]) -> list[int]:
    """How many of the prompt's chunks each endpoint has, in their order."""
    known = request.matched
    if known is not None and known[0] is endpoints:
        return known[1]
    matched = longest_matches(map(_INDEX, endpoints), request.hashes)
    if request.turn is not None and request.turn.answered:
        add_answers(matched, map(_INDEX, endpoints), request.turn)
    request.matched = (endpoints, matched)
    return matched


def chunks_at(request: PickRequest, endpoint: Endpoint) -> int:
    """How many of the prompt's chunks one endpoint has."""
    known = request.matched
    if known is not None and endpoint in known[0]:
        return known[1][known[0].index(endpoint)]
    return matched_chunks(request, (endpoint,))[0]


def remember(request: PickRequest, endpoint: Endpoint) -> None:
    """An endpoint is to compute the prompt, and has it from here on."""
    if request.turn is not None:
        endpoint.prefixes.remember([*request.hashes, request.turn.prompt])
    elif request.hashes:
        endpoint.prefixes.remember(request.hashes)
