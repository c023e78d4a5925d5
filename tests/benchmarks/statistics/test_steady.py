import random
import statistics

import pytest

from benchmarks.statistics.coverage import QueueWaits
from benchmarks.statistics.steady import Window, filled_window, steady_window, truncation


def series(num_before: int, num_steady: int, num_after: int = 0, seed: int = 1) -> list[float]:
    """A start that is five times as slow, a steady part, an end that is twice as fast, all with noise."""
    rng = random.Random(seed)
    levels = [5.0] * num_before + [1.0] * num_steady + [0.5] * num_after
    return [level * rng.uniform(0.9, 1.1) for level in levels]


@pytest.mark.parametrize("num_before", [0, 40, 100, 250])
def test_a_warm_up_is_cut_where_it_ends(num_before: int):
    assert truncation(series(num_before, 700)) == pytest.approx(num_before, abs=15)


def test_a_decaying_warm_up_is_cut_where_it_has_faded():
    rng = random.Random(2)
    decaying = [1 + 10 * 0.95**i + rng.gauss(0, 0.05) for i in range(1000)]
    found = truncation(decaying)
    assert found is not None
    assert 60 <= found <= 160


def test_a_change_in_the_second_half_is_no_steady_state():
    assert truncation(series(600, 400)) is None


def test_a_series_that_keeps_growing_is_no_steady_state():
    assert truncation([float(i) for i in range(1000)]) is None


def test_too_short_to_tell():
    assert truncation([1.0] * 99) is None
    assert truncation([1.0] * 100) == 0


def test_rounding_does_not_make_a_constant_series_unsteady():
    assert truncation([0.1 + 1e9] * 500) == 0


def test_the_window_leaves_out_warm_up_and_cool_down():
    values = series(100, 800, 60)
    window = steady_window([i / 10 for i in range(len(values))], values)
    assert window is not None
    assert 9.5 <= window.start_s <= 20, "no warm-up is inside, and most of the rest is"
    assert 80 <= window.end_s <= 90.5, "nor cool-down"


def test_the_window_of_a_steady_run_is_the_whole_run():
    times = [float(i) for i in range(500)]
    window = steady_window(times, [1.0] * 500)
    assert window is not None
    assert all(map(window.holds, times))


def test_a_queues_bursts_are_not_taken_for_another_state():
    rng, held = random.Random(1), []
    for _ in range(60):
        waits = QueueWaits(0.5).series(1000, rng)
        window = steady_window(range(1000), waits)
        assert window is not None
        held.append(statistics.fmean(wait for i, wait in enumerate(waits) if window.holds(i)))
    assert statistics.fmean(held) == pytest.approx(2.0, rel=0.02), "without the slow ones it would look faster"


def test_equal_samples_have_equal_ranks():
    values = [0.0, 1.0] * 100 + [1.0, 0.0] * 100
    assert truncation(values) == 0


def test_no_window_without_a_steady_state():
    drift = [float(i) for i in range(500)]
    assert steady_window(drift, drift) is None


def test_times_and_samples_must_pair():
    with pytest.raises(ValueError, match="3 times beside 2 samples"):
        steady_window([1.0, 2.0, 3.0], [1.0, 2.0])


def test_the_filled_window_of_a_closed_loop():
    first_tokens, ends = [1.0, 2.0, 3.0, 4.0, 5.0], [4.0, 5.0, 6.0, 7.0, 8.0]
    assert filled_window(first_tokens, ends, 2) == Window(2.0, 6.0)
    assert filled_window(first_tokens, ends, 5) is None
    assert filled_window(first_tokens, ends, 4) is None
    with pytest.raises(ValueError, match="no streams"):
        filled_window(first_tokens, ends, 0)
