"""A prompt as a chain of hashes: two prompts have as many in common as they have chunks from their start.

Few, long chunks, at positions that are the same in every prompt: a call of the hash costs as much as 2 KB of its work.
Chunks grow with the position, since the further a prompt goes the less a chunk is of it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, repeat
from typing import Final

import msgspec
import xxhash

SHORTEST: Final = 256
"""Bytes of the first chunks, about four blocks of a model server's cache."""
_LENGTHS: Final = (*repeat(SHORTEST, 128), *repeat(1024, 32), *repeat(4096, 240), *repeat(16_384, 450))
"""Up to 32 KB, 64 KB, 1 MB and 8 MB. With long chunks from 8 KB on, a session's own turns behind a system prompt of
2,000 tokens went unseen, and first bytes came a tenth later."""

OFFSETS: Final = tuple(accumulate(chain((0,), _LENGTHS)))
"""Bytes before each chunk: as many as the chunks before it hold."""

_PLACES: Final = tuple(map(slice, OFFSETS, OFFSETS[1:]))

_BLOCK: Final = 16
"""Chunks that are hashed as one first: a call costs as much as the work of 2 KB."""
_HASHED_IN_BLOCKS: Final = 160
"""Chunks, up to 64 KB. Longer ones are worth a call of their own."""
_REMEMBERED: Final = 2048
"""Blocks in each of two generations; 4 MB in all."""
_STARTS: Final = range(0, _HASHED_IN_BLOCKS, _BLOCK)
_BLOCKS: Final = tuple(slice(OFFSETS[start], OFFSETS[start + _BLOCK]) for start in _STARTS)
_BLOCK_PLACES: Final = tuple(
    tuple(slice(OFFSETS[n] - OFFSETS[start], OFFSETS[n + 1] - OFFSETS[start]) for n in range(start, start + _BLOCK))
    for start in _STARTS
)

BYTES_PER_TOKEN: Final = 4
"""Of English text; a constant factor cancels out of the rule that uses it."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """A prompt as a turn of a conversation: the whole of it, and the turn before, whose answer it holds."""

    prompt: int
    """Hash of the whole prompt."""
    before: int = 0
    """That of the prompt whose answer is in this one."""
    asked: int = 0
    """Chunks before that answer."""
    answered: int = 0
    """Chunks up to its end."""


def turn_of(stream: bytes, hashes: Sequence[int], *, root: int, asked: int, answered: int) -> Turn:
    """The turn of a prompt. asked, answered: bytes before the last answer in it, and up to its end."""
    digest = xxhash.xxh3_64_intdigest
    prompt = digest(stream[OFFSETS[len(hashes)] :], hashes[-1] if hashes else root)
    if not answered:
        return Turn(prompt)
    count = bisect_right(OFFSETS, asked) - 1
    before = digest(stream[OFFSETS[count] : asked], hashes[count - 1] if count else root)
    return Turn(prompt, before, count, bisect_right(OFFSETS, answered) - 1)


def chunk_hashes(stream: bytes, *, root: int) -> Sequence[int]:
    """The hash of each whole chunk, from the first on, each with all before it in it."""
    count = bisect_right(OFFSETS, len(stream)) - 1
    hashes: list[int] = []
    before = root
    for number in range(min(count, _HASHED_IN_BLOCKS) // _BLOCK):
        hashes += _SEEN.hashes(stream[_BLOCKS[number]], _BLOCK_PLACES[number], before)
        before = hashes[-1]
    digest = xxhash.xxh3_64_intdigest
    hashes += [before := digest(chunk, before) for chunk in map(stream.__getitem__, _PLACES[len(hashes) : count])]
    return hashes


class _Blocks:
    """The hashes of blocks seen lately: prompts begin alike, and one hash of a block finds those of its chunks."""

    def __init__(self) -> None:
        self._young: dict[int, tuple[int, ...]] = {}
        self._old: dict[int, tuple[int, ...]] = {}

    def count(self) -> int:
        """How many are remembered."""
        return len(self._young) + len(self._old)

    def hashes(self, block: bytes, places: Sequence[slice], before: int) -> tuple[int, ...]:
        """Those of a block's chunks, after a chunk with the hash `before`."""
        digest = xxhash.xxh3_64_intdigest
        key = digest(block, before)
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key) or tuple(
                [before := digest(chunk, before) for chunk in map(block.__getitem__, places)]
            )
            if len(self._young) >= _REMEMBERED:
                self._old, self._young = self._young, {}
            self._young[key] = found
        return found


_SEEN: Final = _Blocks()
