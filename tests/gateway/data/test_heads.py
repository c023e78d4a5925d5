"""The table of heads."""

from __future__ import annotations

import pytest

from gateway.data.heads import MAX_HEADS, MAX_KEY_BYTES, HeadTable, split_length


@pytest.mark.parametrize(
    ("head", "key", "length"),
    [
        (b"A\r\ncontent-length: 12\r\nb: c", b"A\r\ncontent-length: \r\nb: c", 12),
        (b"A\r\nContent-Length: 0", b"A\r\nContent-Length: ", 0),
        (b"A\r\nb: c", b"A\r\nb: c", -1),
        (b"A\r\ncontent-length: 1,1", b"A\r\ncontent-length: 1,1", -1),
        (b"A\r\ncontent-length: -1", b"A\r\ncontent-length: -1", -1),
        (b"A\r\ncontent-length: ", b"A\r\ncontent-length: ", -1),
        (b"A\r\ncontent-length: " + b"9" * 16, b"A\r\ncontent-length: " + b"9" * 16, -1),
        (b"A\r\nx-content-length: 1", b"A\r\nx-content-length: 1", -1),
    ],
)
def test_split_length(head: bytes, key: bytes, length: int) -> None:
    assert split_length(head) == (key, length)


def test_the_table_is_bounded() -> None:
    table: HeadTable[int] = HeadTable()
    for number in range(3 * MAX_HEADS + 1):
        table.add(b"%d" % number, number)
    assert table.get(b"%d" % (3 * MAX_HEADS)) == 3 * MAX_HEADS
    assert sum(table.get(b"%d" % number) is not None for number in range(3 * MAX_HEADS)) < MAX_HEADS
    table.add(b"x" * (MAX_KEY_BYTES + 1), 1)
    assert table.get(b"x" * (MAX_KEY_BYTES + 1)) is None
