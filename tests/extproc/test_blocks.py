"""Blocks of headers: how they are put together, and what the table does to those that came before."""

import pytest
from hpack import Decoder, Encoder

from controller.extproc.http2 import frames
from controller.extproc.http2.blocks import Block, Blocks
from controller.extproc.http2.frames import END_HEADERS, END_STREAM, Broken

FIELDS = [(b":status", b"200"), (b"x-tenant", b"t")]
PLAIN = frames.encoded(FIELDS)


@pytest.fixture
def blocks() -> Blocks:
    return Blocks(Decoder(), largest=1000)


@pytest.mark.parametrize("end", [False, True])
def test_block_in_several_frames_is_one(blocks: Blocks, end: bool) -> None:
    assert blocks.begin(1, END_STREAM if end else 0, PLAIN[:3]) is None
    assert blocks.go_on(1, 0, PLAIN[3:10]) is None
    assert blocks.go_on(1, END_HEADERS, PLAIN[10:]) == Block(FIELDS, end)
    assert blocks.begun is None


def test_headers_of_another_stream_do_not_go_on(blocks: Blocks) -> None:
    blocks.begin(1, 0, PLAIN[:3])
    with pytest.raises(Broken, match="did not begin"):
        blocks.go_on(3, END_HEADERS, PLAIN[3:])


def test_block_is_too_large_before_it_is_whole(blocks: Blocks) -> None:
    blocks.begin(1, 0, bytes(600))
    with pytest.raises(Broken, match="too large"):
        blocks.go_on(1, 0, bytes(600))


def test_same_bytes_mean_something_else_after_the_table_has_changed(blocks: Blocks) -> None:
    # An index names the newest entry, whichever that is.
    encoder = Encoder()
    newest = b"\xbe"
    for value in (b"a", b"b"):
        blocks.begin(1, END_HEADERS, encoder.encode([(b"x-tenant", value)], huffman=False))
        for _ in range(2):
            assert blocks.begin(3, END_HEADERS, newest) == Block([(b"x-tenant", value)], end=False)
