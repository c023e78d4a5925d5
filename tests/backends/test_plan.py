from __future__ import annotations

import pytest

from backends.plan import GIB, MIB, size_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (36 * GIB + 8 * GIB // 10, "36.8 GiB"), (160 * MIB, "160 MiB"), (1500 * GIB, "1,500.0 GiB"), (0, "0 MiB"), (1, "1 MiB"),
        (160 * MIB + 1, "161 MiB"),
    ],
)  # fmt: skip
def test_sizes(size: int, words: str) -> None:
    """Never less than it is."""
    assert size_words(size) == words
