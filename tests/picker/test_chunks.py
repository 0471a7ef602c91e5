"""A prompt as a chain of hashes, whatever was seen before it."""

import random
from itertools import pairwise

import pytest
import xxhash

from controller.picker import chunks
from controller.picker.chunks import OFFSETS, chunk_hashes


def one_by_one(stream: bytes, *, root: int) -> list[int]:
    found: list[int] = []
    for start, end in pairwise(OFFSETS):
        if end > len(stream):
            break
        found.append(xxhash.xxh3_64_intdigest(stream[start:end], found[-1] if found else root))
    return found


@pytest.mark.parametrize(
    "size", [0, 255, 256, 4095, 4096, 4351, 8192, 32_767, 32_768, 49_151, 49_152, 65_535, 65_536, 70_000, 2_000_000]
)
def test_hashes_are_those_of_a_chain(size: int) -> None:
    stream = random.Random(size).randbytes(size)
    expected = one_by_one(stream, root=3)

    assert list(chunk_hashes(stream, root=3)) == expected
    assert list(chunk_hashes(stream, root=3)) == expected, "the second time its blocks are known"


@pytest.mark.parametrize("changed", [0, 4095, 4096, 20_000, 40_000, 65_535])
def test_prompt_that_parts_from_a_known_one_has_hashes_of_its_own_from_there(changed: int) -> None:
    stream = random.Random(1).randbytes(100_000)
    chunk_hashes(stream, root=3)
    other = bytearray(stream)
    other[changed] ^= 1

    assert list(chunk_hashes(bytes(other), root=3)) == one_by_one(bytes(other), root=3)
    assert list(chunk_hashes(stream, root=4)) == one_by_one(stream, root=4)


def test_blocks_that_are_remembered_are_bounded() -> None:
    rng = random.Random(2)
    kept = rng.randbytes(4096)
    for _ in range(3 * chunks._REMEMBERED):
        chunk_hashes(rng.randbytes(4096), root=0)

    assert chunks._SEEN.count() <= 2 * chunks._REMEMBERED
    assert list(chunk_hashes(kept, root=0)) == one_by_one(kept, root=0)
