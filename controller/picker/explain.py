"""Why an endpoint was chosen, as the header that a client gets who asks for it where the operator allows it.

It tells of endpoints, counts and scores, and of the prompt its size: nothing that was said, and nothing of others'
requests.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from controller.headers import EXPLAIN_HEADER
from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.trace import Trace

MOST_CANDIDATES: Final = 16
"""Candidates that are told of; how many others there were is told too."""
LARGEST: Final = 6000
"""Bytes of the value: nginx takes 16 KB of headers from the picker, and clients often 8 KB in one line."""

_HEADER: Final = EXPLAIN_HEADER.encode()
_DIGITS: Final = 6

Json = Mapping[str, Any]  # Any: JSON


def asks(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a client wants to know why."""
    return headers.get(_HEADER) == b"1"


def header_of(value: bytes) -> bytes:
    """The header line with an explanation."""
    return b"%b: %b\r\n" % (_HEADER, value)


def explanation(
    request: PickRequest, trace: Trace, *, outcome: str, chosen: Sequence[Endpoint] = (), waited: float = 0.0
) -> bytes:
    """Why a request ended so, as compact JSON in ASCII of at most `LARGEST` bytes.

    `waited` is in seconds.
    """
    found = {
        "outcome": outcome,
        "why": _why(trace, chosen=chosen),
        "choice": chosen[0].address if chosen else None,
        "fallbacks": [endpoint.address for endpoint in chosen[1:]],
        **_names(request),
        "tried": [f"{one.address}={one.failure.value}" for one in request.tried],
        "waitedMs": round(waited * 1000),
        "promptTokens": request.prompt_bytes // BYTES_PER_TOKEN,
        "cachedTokens": request.cached_bytes // BYTES_PER_TOKEN,
        "filters": [{"name": one.name, "in": len(one.before), "out": len(one.after)} for one in trace.filters],
        "weights": {one.name: one.weight for one in trace.scores},
    }
    candidates = _candidates(trace, chosen=chosen)
    told = candidates[:MOST_CANDIDATES]
    while True:
        value = _encode({**found, "candidates": told, "leftOut": len(candidates) - len(told)})
        if len(value) <= LARGEST:
            return value
        if not told:
            # Names of many plugins; what is left is bounded by the lengths of addresses.
            return _encode({name: found[name] for name in ("outcome", "why", "choice", "waitedMs")})[:LARGEST]
        told = told[: len(told) // 2]


def _names(request: PickRequest) -> Json:
    """The model that is asked for and the one that is given, where a rewrite says which."""
    return {"model": request.model, "target": request.target} if request.target else {}


def _why(trace: Trace, *, chosen: Sequence[Endpoint]) -> str:
    if not chosen:
        return "filters left none" if trace.filters and not trace.filters[-1].after else "no choice was made"
    if trace.is_fallback:
        return "a fallback of the first answer"
    if trace.is_of_session:
        return "the endpoint of the session"
    return f"{trace.picker} of {len(trace.scored)}" if trace.picker else "filters left one"


def _candidates(trace: Trace, *, chosen: Sequence[Endpoint]) -> list[Json]:
    """The chosen ones first, then by total, then those that filters left out, the last filter's first."""
    place = {endpoint: number for number, endpoint in enumerate(chosen)}
    totals = dict(zip(trace.scored, trace.totals, strict=True))
    removed = {endpoint: one.name for one in trace.filters for endpoint in _missing(one.before, one.after)}
    known = trace.filters[0].before if trace.filters else trace.scored
    ordered = sorted(
        known,
        key=lambda endpoint: (place.get(endpoint, len(place)), endpoint in removed, -totals.get(endpoint, 0.0)),
    )
    scored = {endpoint: number for number, endpoint in enumerate(trace.scored)}
    return [
        _left_out(endpoint, removed[endpoint])
        if endpoint in removed
        else _candidate(endpoint, trace, number=scored.get(endpoint))
        for endpoint in ordered
    ]


def _missing(before: Sequence[Endpoint], after: Sequence[Endpoint]) -> Iterable[Endpoint]:
    if before is after:
        return ()
    left = set(after)
    return [endpoint for endpoint in before if endpoint not in left]


def _left_out(endpoint: Endpoint, by: str) -> Json:
    return {"endpoint": endpoint.address, "leftOutBy": by}


def _candidate(endpoint: Endpoint, trace: Trace, *, number: int | None) -> Json:
    found: dict[str, Any] = {"endpoint": endpoint.address}  # Any: JSON
    if number is None:
        return found
    # The sum of enormous weights is infinite, which is no JSON.
    found["total"] = round(min(trace.totals[number], sys.float_info.max), _DIGITS)
    found["scores"] = {one.name: round(one.scores[number], _DIGITS) for one in trace.scores}
    found["cachedTokens"] = OFFSETS[trace.matched[number]] // BYTES_PER_TOKEN
    terms = {
        one.name: {name: rounded for name, value in one.terms[number].items() if (rounded := round(value, _DIGITS))}
        for one in trace.scores
        if one.terms
    }
    if terms:
        found["terms"] = terms
    return found


def _encode(found: Json) -> bytes:
    return json.dumps(found, separators=(",", ":"), ensure_ascii=True).encode("ascii")
