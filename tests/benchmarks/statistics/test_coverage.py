import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.statistics import bootstrap
from benchmarks.statistics.coverage import (
    Autoregressive,
    Campaign,
    Process,
    QueueWaits,
    Row,
    coverage,
    main,
    of_mean,
    table,
)
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


def test_a_line_for_every_kind_and_both_files(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = tmp_path / "coverage.json"
    code = main(["--runs", "1", "--replicates", "5", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 20
    assert all("%  " in line or "no interval  " in line for line in lines)
    assert any("p99 of M/M/1" in line for line in lines)
    result = json.loads(out.read_text("utf-8"))
    assert (result["runs"], result["replicates"], result["nominal"]) == (1, 5, 0.95)
    assert len(result["rows"]) == len(lines)
    assert result["is_held"] is (code == 0)
    assert out.with_suffix(".md").read_text("utf-8").startswith("# Do the intervals hold")


def test_what_is_not_held_stands_out():
    found = [Row("mean", "a, 3 x 10", 0.95), Row("p50", "a, 3 x 10", 0.919), Row("mean", "b, 3 x 10", 0.98)]
    assert [row.is_held for row in found] == [True, False, True]
    text = table(found, 1000, 400)
    assert "Within 92% to 98%: 2 of 3; the others in bold." in text
    assert "| a, 3 x 10 | 95.0% | **91.9%** |" in text
    assert "| b, 3 x 10 | 98.0% |  |" in text
    assert Row("p99", "c, 3 x 10", math.nan).is_held
    assert Row("p99", "c, 3 x 10", math.nan).share == "no interval"


def test_a_hundred_campaigns_already_tell_a_wrong_interval_from_a_right_one():
    campaign = Campaign(Autoregressive(), 100)
    assert of_mean(campaign, 100, 60) >= 0.9
    narrow = coverage(campaign, lambda repeats: _halved(bootstrap.mean(repeats, num_replicates=60)), 1.0, 100)
    assert narrow < 0.85


def _halved(interval: Interval) -> Interval:
    assert interval.low is not None
    assert interval.high is not None
    low, high = ((end + interval.estimate) / 2 for end in (interval.low, interval.high))
    return replace(interval, low=low, high=high)


@pytest.mark.parametrize("words", [["--out", "table.txt"], ["--runs", "0"]])
def test_bad_usage(words: list[str]):
    with pytest.raises(SystemExit) as exits:
        main(words)
    assert exits.value.code == 2


def test_only_given_intervals_are_counted():
    found = iter([None, Interval(1.0, 0.5, 1.5, 0.95, 1, 1, 1.0), Interval(2.0, 1.5, 2.5, 0.95, 1, 1, 1.0), None])
    campaign = Campaign(Autoregressive(), 1)
    assert coverage(campaign, lambda _: next(found), 1.0, 4) == 0.5
    assert math.isnan(coverage(campaign, lambda _: None, 1.0, 4))
