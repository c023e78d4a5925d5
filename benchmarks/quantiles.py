"""A distribution as a curve: few enough points for a result file, enough for a plot. Pure."""

from __future__ import annotations

from collections.abc import Sequence

SHARES = (*(percent / 100 for percent in range(100)), 0.995, 0.999, 1.0)
"""Where curves are read; the tail more finely."""


def curve(values: Sequence[float]) -> tuple[float, ...]:
    """The value that a share of the samples is not above, for each of SHARES; empty without samples.

    Shares that the samples are too few to tell apart give the same sample, never one between two.
    """
    row = sorted(values)
    return tuple(row[min(int(share * len(row)), len(row) - 1)] for share in SHARES) if row else ()
