"""Times to the first byte as a small histogram: buckets a quarter of an octave wide, so that a median is right within a few per cent.

bucket n holds times from 2^(n/4) ms up to 2^((n+1)/4) ms; what took less than 1 ms is in bucket 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_PER_OCTAVE = 4


def bucket_of(ms: float) -> int:
    return int(math.log2(ms) * _PER_OCTAVE) if ms > 1.0 else 0


def median_s(histogram: Mapping[int, int]) -> float | None:
    """Return the median in seconds, within its bucket by the rank that it has there; None of nothing."""
    num = sum(histogram.values())
    rank = num / 2
    for bucket in sorted(histogram):
        if rank <= histogram[bucket]:
            return float(2 ** ((bucket + rank / histogram[bucket]) / _PER_OCTAVE) / 1000) if num else None
        rank -= histogram[bucket]
    return None
