"""A rate as a series: what came in each of many equal slices of a window. Its mean over the slice's length is the rate,
and how the slices follow each other says how far the rate can be trusted.
"""

from collections.abc import Iterable

from benchmarks.statistics.steady import Window

NUM_SLICES = 500


def per_second(events: Iterable[tuple[float, float]], window: Window, num_slices: int = NUM_SLICES) -> list[float]:
    """`events`: (moment, amount), such as (a chunk's arrival, the tokens it carried); returns amount per second of each
    slice, in order. Raises ValueError for a window without a length.
    """
    if window.duration_s <= 0 or num_slices < 1:
        raise ValueError(f"no slices: {num_slices} of {window.duration_s} s")
    width_s = window.duration_s / num_slices
    sums = [0.0] * num_slices
    for at_s, amount in events:
        if window.holds(at_s):
            sums[min(num_slices - 1, int((at_s - window.start_s) / width_s))] += amount
    return [total / width_s for total in sums]
