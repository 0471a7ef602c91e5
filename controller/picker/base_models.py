"""Base models of what the pools serve, for NGINX, which routes by them and does not know what pods list.

NGINX asks again and again, so the answer is made when endpoints have been asked, and one without news is empty.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from controller.picker.model_names import aliases_of, base_of, listed_of
from controller.picker.pools import PoolState, adapters_in_use

MOST: Final = 4096
"""Names that NGINX is told of; it keeps them in a shared dictionary of some 2 MB."""
LONGEST: Final = 256
"""Characters of a base model's name."""

_UNCHANGED: Final = b"HTTP/1.1 304 Not Modified\r\n\r\n"


class BaseModels:
    """The answer to the question for them."""

    def __init__(self) -> None:
        self._etag = b""
        self._answer = _UNCHANGED
        """A picker that does not know yet has no news."""

    def digest(self, pools: Iterable[PoolState], *, now: float) -> None:
        """Take what the pools serve at this moment."""
        body = msgspec.json.encode(base_models(pools, now=now))
        etag = hashlib.sha256(body).hexdigest()[:16].encode()
        if etag != self._etag:
            self._etag = etag
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: %b\r\ncontent-length: %d\r\n\r\n"
            self._answer = head % (etag, len(body)) + body

    def answer(self, known: bytes) -> bytes:
        """An answer as it stands on the wire. `known` is the etag of what NGINX has."""
        return _UNCHANGED if known == self._etag else self._answer


def base_models(pools: Iterable[PoolState], *, now: float) -> dict[str, str]:
    """Base models by the name of what has them, sorted; a base model is its own.

    Of pools that differ the first by name holds. An adapter that is in use, and listed nowhere, belongs to the only
    base model of its pool. An alias of models with different bases has none.
    """
    found: dict[str, str] = {}
    for pool in sorted(pools, key=lambda pool: pool.name):
        listed = listed_of(pool, now=now)
        for name, model in listed.items():
            found.setdefault(name, base_of(model))
        for name, alias in aliases_of(pool, listed=listed).items():
            if alias.parent:
                found.setdefault(name, alias.parent)
        bases = {base_of(model) for model in listed.values()}
        if len(bases) == 1:
            (only,) = bases
            for endpoint in pool.endpoints:
                for name in adapters_in_use(endpoint):
                    found.setdefault(name, only)
    told = sorted((name, base) for name, base in found.items() if len(base) <= LONGEST and base.isprintable())
    return dict(told[:MOST])
