"""Messages of gRPC, of data that comes in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.extproc.grpc import RESOURCE_EXHAUSTED, UNIMPLEMENTED, MessageRefused, Messages, prefix

MOST = 1000


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_whole_however_they_are_cut(sent: list[bytes], sizes: list[int]) -> None:
    data = b"".join(prefix(len(message)) + message for message in sent)
    messages, found, number = Messages(most=MOST), [], 0
    while data:
        size = sizes[number % len(sizes)]
        found += messages.add(data[:size])
        data, number = data[size:], number + 1
    assert found == sent
    assert messages.held == 0


def test_what_is_not_whole_is_held() -> None:
    messages = Messages(most=MOST)
    assert messages.add(prefix(3) + b"abc" + prefix(10) + b"12") == [b"abc"]
    assert messages.held == 7
    messages.clear()
    assert messages.add(prefix(0)) == [b""]


@pytest.mark.parametrize(
    ("data", "status"), [(b"\1\0\0\0\1x", UNIMPLEMENTED), (prefix(MOST + 1), RESOURCE_EXHAUSTED)], ids=str
)
def test_compressed_and_large_messages_are_refused(data: bytes, status: int) -> None:
    with pytest.raises(MessageRefused) as refused:
        Messages(most=MOST).add(data)
    assert refused.value.status == status
