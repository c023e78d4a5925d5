import random
import statistics

import pytest

from benchmarks.metrics import percentile as metrics_percentile
from benchmarks.statistics import bootstrap
from benchmarks.statistics.coverage import (
    Autoregressive,
    Campaign,
    Process,
    QueueWaits,
    of_mean,
    of_percentile,
    of_ratio,
)

RUNS, REPLICATES = 1000, 100
HOLDS = pytest.approx(0.95, abs=0.03)
PROCESSES = [
    pytest.param(Autoregressive(phi=0.6), 200, id="autoregressive"),
    pytest.param(QueueWaits(0.5), 600, id="queue"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("process", "num"), PROCESSES)
def test_intervals_of_the_mean_hold_the_truth(process: Process, num: int):
    assert of_mean(Campaign(process, num), RUNS, REPLICATES) == HOLDS


@pytest.mark.slow
@pytest.mark.parametrize(("process", "num"), PROCESSES)
def test_intervals_of_percentiles_hold_the_truth(process: Process, num: int):
    assert of_percentile(Campaign(process, num), 0.9, RUNS, REPLICATES) == HOLDS


@pytest.mark.slow
def test_intervals_of_ratios_hold_the_truth():
    assert of_ratio(Campaign(Autoregressive(), 150), 1.1, RUNS, REPLICATES) == HOLDS


@pytest.mark.slow
@pytest.mark.parametrize("repeat_spread", [0.03, 0.2], ids=["as much as the noise", "far more than the noise"])
def test_intervals_hold_the_truth_where_repeats_differ(repeat_spread: float):
    assert of_mean(Campaign(Autoregressive(repeat_spread=repeat_spread), 150), RUNS, REPLICATES) == HOLDS


def test_samples_taken_for_independent_would_not_hold_it():
    rng = random.Random(5)
    held = 0
    for _ in range(200):
        series = QueueWaits(0.5).series(500, rng)
        margin = 1.96 * statistics.stdev(series) / len(series) ** 0.5
        held += abs(statistics.fmean(series) - 2.0) <= margin
    assert held / 200 < 0.7


def test_the_same_numbers_give_the_same_interval():
    repeats = Campaign(Autoregressive(), 100).repeats(random.Random(6))
    assert bootstrap.mean(repeats, seed=7) == bootstrap.mean(repeats, seed=7)
    assert bootstrap.mean(repeats, seed=7) != bootstrap.mean(repeats, seed=8)


def test_what_an_interval_is_made_of():
    repeats = Campaign(Autoregressive(), 100).repeats(random.Random(9))
    found = bootstrap.mean(repeats)
    assert found.estimate == pytest.approx(statistics.fmean(value for one in repeats for value in one))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.estimate < found.high
    assert (found.num_samples, found.num_repeats, found.level) == (300, 3, 0.95)
    assert found.num_blocks < 150
    assert found.contains(found.estimate)


def test_repeats_that_differ_are_seen_and_widen():
    alike = Campaign(Autoregressive(), 300).repeats(random.Random(10))
    apart = [[value * factor for value in one] for one, factor in zip(alike, (1.0, 1.2, 1.4), strict=True)]
    assert not bootstrap.mean(alike).is_between_repeats
    found = bootstrap.mean(apart)
    assert found.is_between_repeats
    assert found.relative_half_width > 4 * bootstrap.mean(alike).relative_half_width


def test_a_shared_factor_cancels_in_a_ratio():
    rng = random.Random(11)
    base = [[rng.lognormvariate(0, 1) for _ in range(200)] for _ in range(3)]
    doubled = [[2 * value for value in one] for one in base]
    found = bootstrap.ratio(doubled, base)
    assert (found.low, found.estimate, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_constant_samples_leave_no_width():
    found = bootstrap.mean([[3.0] * 50] * 3)
    assert (found.low, found.high, found.relative_half_width) == (3.0, 3.0, 0.0)


def test_a_rate_of_nothing_is_zero_without_an_error():
    found = bootstrap.mean([[0.0] * 50] * 3)
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)
    partly = bootstrap.mean([[0.0] * 50, [0.0, 1.0] * 25])
    assert partly.low is not None
    assert partly.low <= 0.25 <= (partly.high or 0)


def test_a_percentile_is_that_of_the_metrics():
    pareto = [1200 / (i + 0.5) for i in range(1200)]
    random.Random(12).shuffle(pareto)
    repeats = [pareto[:400], pareto[400:800], pareto[800:]]
    found = bootstrap.percentile(repeats, 0.99)
    assert found is not None
    assert found.estimate == metrics_percentile(sorted(value for one in repeats for value in one), 0.99)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.estimate > found.estimate - found.low, "the tail is on that side"


def test_a_percentile_beyond_the_samples_has_no_interval():
    rng = random.Random(16)
    samples = [rng.random() for _ in range(1300)]
    assert bootstrap.percentile([samples[:999]], 0.99) is None
    assert bootstrap.percentile([samples[:650], samples[650:]], 0.99) is not None


def test_samples_beyond_that_depend_on_each_other_count_for_fewer():
    rng = random.Random(15)
    alike, apart = (Autoregressive(phi).series(1200, rng) for phi in (0.99, 0.0))
    assert bootstrap.percentile([apart], 0.99) is not None
    assert bootstrap.percentile([alike], 0.99) is None


def test_a_few_bursts_of_a_queue_are_not_enough_for_its_tail():
    """With ten bursts beyond the percentile, half of these campaigns had an interval, of which 77 in 100 held the truth."""
    queue = Campaign(QueueWaits(0.7), 3000)
    assert not any(bootstrap.percentile(queue.repeats(random.Random(seed)), 0.99) for seed in range(6))


def test_an_end_that_the_samples_do_not_reach_is_open():
    rng = random.Random(13)
    repeats = [[rng.uniform(0, 1) + offset for _ in range(1000)] for offset in (0.0, 0.0, 0.5)]
    found = bootstrap.percentile(repeats, 0.99)
    assert found is not None
    assert found.is_between_repeats, "one repeat of three holds the whole tail"
    assert found.high is None
    assert found.relative_half_width == float("inf")


def test_samples_that_are_all_the_same_leave_a_percentile_no_width():
    found = bootstrap.percentile([[1.0] * 2000], 0.99)
    assert found is not None
    assert (found.low, found.estimate, found.high) == (1.0, 1.0, 1.0)


def test_a_largest_value_that_many_share():
    found = bootstrap.percentile([[1.0, 2.0, 2.0] * 400], 0.9)
    assert found is not None
    assert (found.low, found.estimate, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("repeats", [[], [[]], [[], []]])
def test_no_samples(repeats: list[list[float]]):
    with pytest.raises(ValueError, match="no samples"):
        bootstrap.mean(repeats)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="2 numerators beside 1 denominators"):
        bootstrap.ratio([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="nothing to divide by"):
        bootstrap.ratio([[1.0], [1.0]], [[1.0], [0.0]])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        bootstrap.percentile([[1.0]], 1.0)


def test_many_samples_are_taken_in_cells():
    rng = random.Random(14)
    samples = [rng.expovariate(1) for _ in range(50_000)]
    found = bootstrap.mean([samples])
    assert found.num_samples == 50_000
    assert found.relative_half_width == pytest.approx(1.96 / 50_000**0.5, rel=0.2)
