import math
import random
import statistics

import pytest

from benchmarks.statistics.coverage import Autoregressive, Campaign, Process, QueueWaits, coverage, main
from benchmarks.statistics.interval import Interval


@pytest.mark.parametrize("process", [Autoregressive(phi=0.6), QueueWaits(0.5)])
def test_the_truths_are_those_of_the_processes(process: Process):
    samples = process.series(100_000, random.Random(1))
    assert statistics.fmean(samples) == pytest.approx(process.true_mean(), rel=0.02)
    share = sum(sample <= process.true_percentile(0.9) for sample in samples) / len(samples)
    assert share == pytest.approx(0.9, abs=0.01)


def test_repeats_differ_by_their_own_factor():
    rng = random.Random(2)
    process = Autoregressive(phi=0.0, spread=0.01, repeat_spread=0.1)
    means = [statistics.fmean(process.series(50, rng)) for _ in range(300)]
    assert statistics.stdev(means) == pytest.approx(0.1, rel=0.15)


def test_the_table_has_a_line_for_every_kind(capsys: pytest.CaptureFixture[str]):
    main(["--runs", "1", "--replicates", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 20
    assert all("%  " in line for line in lines)
    assert any("p99 of M/M/1" in line for line in lines)


def test_only_given_intervals_are_counted():
    found = iter([None, Interval(1.0, 0.5, 1.5, 0.95, 1, 1, 1.0), Interval(2.0, 1.5, 2.5, 0.95, 1, 1, 1.0), None])
    campaign = Campaign(Autoregressive(), 1)
    assert coverage(campaign, lambda _: next(found), 1.0, 4) == 0.5
    assert math.isnan(coverage(campaign, lambda _: None, 1.0, 4))
