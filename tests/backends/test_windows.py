"""Windows of a text."""

from __future__ import annotations

import numpy as np

from backends.windows import cut


def test_windows_are_whole_begin_as_the_model_wants_and_span_the_text() -> None:
    text = np.arange(100, 205, dtype=np.int32)
    assert [window.tolist() for window in cut(text, 50, None)] == [list(range(100, 150)), list(range(150, 200))]
    marked = cut(text, 11, 1, most=2)
    assert [window.tolist() for window in marked] == [[1, *range(100, 110)], [1, *range(150, 160)]]
    assert cut(text[:9], 10, None) == []
