"""Text as tokens: a token is four bytes of UTF-8, so a prompt's length in tokens is known without reading it.

Answers are made of four-byte words. A prompt that repeats an earlier prompt and its answer has the same bytes at the
same place, and so finds their blocks in the cache.
"""

import random
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

TOKEN_BYTES = 4

_WORDS = (
    "the and for are but not you all any can her was one our out day get has him his how man new now old see two way "
    "who boy did its let put say she too use ask air big box car cut dog eat end eye far few fly got hot ice job key"
)
_STREAM_WORDS = 8191
"""A prime, so that starts spread over all of them."""


def count_tokens(content: bytes | bytearray) -> int:
    return -(-len(content) // TOKEN_BYTES)


def word_stream(seed: int) -> bytes:
    """An endless text's period: what every answer of a pod is a piece of."""
    words = random.Random(seed).choices(_WORDS.split(), k=_STREAM_WORDS)
    return b"".join(b"%s " % word.encode() for word in words)


def answer_to(prompt: bytes, *, seed: int, tokens: int, stream: bytes) -> bytes:
    """The text of an answer of so many tokens; the same for the same arguments in every process."""
    start = zlib.crc32(prompt, seed & 0xFFFFFFFF) % _STREAM_WORDS * TOKEN_BYTES
    end = start + tokens * TOKEN_BYTES
    if end > len(stream):
        stream = stream * (end // len(stream) + 1)
    return stream[start:end]


@dataclass(frozen=True, slots=True)
class End:
    """Where a stop string ends an answer."""

    text: str
    tokens: int
    """Generated until then, those of the stop string among them."""
    shown: int
    """Bytes before the stop string."""


def ended_at(answer: bytes, stop: Collection[str]) -> End | None:
    """Where the first of these texts ends an answer; None where none of them is in it."""
    found = [(at + len(text.encode()), text) for text in stop if text and (at := answer.find(text.encode())) >= 0]
    if not found:
        return None
    end, text = min(found)
    return End(text, tokens=-(-end // TOKEN_BYTES), shown=end - len(text.encode()))


def block_hashes(content: bytes, *, root: str, block_size: int) -> list[int]:
    """Hash of each full block of `block_size` tokens, chained: equal hashes mean equal text up to the block's end.

    `root` is what keeps equal texts apart, such as an adapter's name. Hashes differ between processes.
    """
    size = block_size * TOKEN_BYTES
    chained = hash(root)
    hashes = []
    for end in range(size, len(content) + 1, size):
        chained = hash((chained, content[end - size : end]))
        hashes.append(chained)
    return hashes


def bytes_to_token_ids(content: bytes) -> list[int]:
    """The tokens of a text. The last one may be short; it is the same as with zeros behind it."""
    starts = range(0, len(content), TOKEN_BYTES)
    return [int.from_bytes(content[start : start + TOKEN_BYTES].ljust(TOKEN_BYTES, b"\0"), "big") for start in starts]


def token_ids_to_bytes(ids: Sequence[int]) -> bytes:
    """A prompt given as token ids, as text of the same number of tokens."""
    return b"".join((identifier & 0xFFFFFFFF).to_bytes(TOKEN_BYTES, "big") for identifier in ids)
