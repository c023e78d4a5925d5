"""Do the intervals hold what they promise? Simulated campaigns whose true values are known, counted.

    python -m benchmarks.statistics.coverage --runs 1000 --out benchmarks/results/coverage.json

Latencies: autoregressive around a mean, as load that comes and goes makes them, or the waits of an M/M/1 queue, whose
neighbours share the same queue; both with or without repeats that differ by themselves. Prints the share of intervals
that hold the truth, for nominal 95 %, and says where it is not within 92 to 98 %.

exit codes: 0 all are within, 1 some are not, 2 bad usage
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist

from benchmarks.statistics import bootstrap
from benchmarks.statistics.interval import Interval

LOWEST, HIGHEST = 0.92, 0.98
"""What is promised of a nominal 95 %."""
MIN_GIVEN = 0.05
"""Share of the campaigns that must have an interval at all, for one to speak of its coverage."""


@dataclass(frozen=True, slots=True)
class Autoregressive:
    """x_i = mean + y_i with y_i = phi y_(i-1) + noise: stationary, normal with standard deviation `spread`, times the
    repeat's own factor.
    """

    phi: float = 0.6
    mean: float = 1.0
    spread: float = 0.25
    repeat_spread: float = 0.0
    """Standard deviation of that factor around 1."""

    def series(self, num: int, rng: random.Random) -> list[float]:
        """One repeat."""
        factor = 1 + rng.gauss(0, self.repeat_spread) if self.repeat_spread else 1.0
        noise = self.spread * math.sqrt(1 - self.phi**2)
        value, found = rng.gauss(0, self.spread), []
        for _ in range(num):
            found.append(factor * (self.mean + value))
            value = self.phi * value + rng.gauss(0, noise)
        return found

    def true_mean(self) -> float:
        """Over all repeats that could be."""
        return self.mean

    def true_percentile(self, q: float) -> float:
        """Of one sample; only without factors of the repeats."""
        return NormalDist(self.mean, self.spread).inv_cdf(q)


@dataclass(frozen=True, slots=True)
class QueueWaits:
    """Times in an M/M/1 queue with service rate 1, waiting and service, one customer after the other (Lindley's
    recursion), started in its stationary state: exponential with rate 1 - load.
    """

    load: float = 0.5

    def series(self, num: int, rng: random.Random) -> list[float]:
        """One repeat."""
        in_system, found = rng.expovariate(1 - self.load), []
        for _ in range(num):
            found.append(in_system)
            in_system = max(0.0, in_system - rng.expovariate(self.load)) + rng.expovariate(1.0)
        return found

    def true_mean(self) -> float:
        """1 / (1 - load)."""
        return 1 / (1 - self.load)

    def true_percentile(self, q: float) -> float:
        """Of one customer."""
        return -math.log(1 - q) / (1 - self.load)


Process = Autoregressive | QueueWaits


@dataclass(frozen=True, slots=True)
class Campaign:
    """So many repeats of a process, so long."""

    process: Process
    num_samples: int
    num_repeats: int = 3

    def repeats(self, rng: random.Random) -> list[list[float]]:
        """Fresh ones."""
        return [self.process.series(self.num_samples, rng) for _ in range(self.num_repeats)]


def coverage(
    campaign: Campaign,
    estimate: Callable[[list[list[float]]], Interval | None],
    truth: float,
    num_runs: int,
    seed: int = 0,
) -> float:
    """Share of the intervals of `num_runs` campaigns that hold the truth; not a number where next to none was given."""
    rng = random.Random(seed)
    found = [estimate(campaign.repeats(rng)) for _ in range(num_runs)]
    held = [interval.contains(truth) for interval in found if interval is not None]
    return sum(held) / len(held) if len(held) >= max(1, MIN_GIVEN * num_runs) else math.nan


def of_mean(campaign: Campaign, num_runs: int, num_replicates: int = bootstrap.NUM_REPLICATES, seed: int = 0) -> float:
    """Of the mean's interval."""

    def estimate(repeats: list[list[float]]) -> Interval:
        return bootstrap.mean(repeats, num_replicates=num_replicates, seed=seed)

    return coverage(campaign, estimate, campaign.process.true_mean(), num_runs, seed)


def of_percentile(
    campaign: Campaign, q: float, num_runs: int, num_replicates: int = bootstrap.NUM_REPLICATES, seed: int = 0
) -> float:
    """Of the q-th quantile's."""

    def estimate(repeats: list[list[float]]) -> Interval | None:
        return bootstrap.percentile(repeats, q, num_replicates=num_replicates, seed=seed)

    return coverage(campaign, estimate, campaign.process.true_percentile(q), num_runs, seed)


def of_ratio(
    campaign: Campaign, true_ratio: float, num_runs: int, num_replicates: int = bootstrap.NUM_REPLICATES, seed: int = 0
) -> float:
    """Of the ratio B / A where B takes `true_ratio` times as long for the same requests, give or take a tenth each."""
    rng = random.Random(f"{seed}/b")

    def estimate(repeats: list[list[float]]) -> Interval:
        others = [[true_ratio * value * rng.uniform(0.9, 1.1) for value in one] for one in repeats]
        return bootstrap.ratio(others, repeats, num_replicates=num_replicates, seed=seed)

    return coverage(campaign, estimate, true_ratio, num_runs, seed)


CAMPAIGNS = {
    "autoregressive, 3 x 300": Campaign(Autoregressive(), 300),
    "autoregressive, 3 x 3000": Campaign(Autoregressive(), 3000),
    "strongly autoregressive, 3 x 1000": Campaign(Autoregressive(phi=0.9), 1000),
    "M/M/1 at 0.5, 3 x 1000": Campaign(QueueWaits(0.5), 1000),
    "M/M/1 at 0.7, 3 x 3000": Campaign(QueueWaits(0.7), 3000),
}
UNEVEN = {
    f"repeats that differ by {ratio:g} times their noise, 3 x 300": Campaign(
        Autoregressive(repeat_spread=ratio * 0.25 * 2 / math.sqrt(300)), 300
    )
    for ratio in (0.5, 1, 2, 4)
}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of interval over one kind of campaign."""

    figure: str
    """`mean`, `ratio`, `p50`, and so on."""
    campaign: str
    coverage: float
    """Share of the intervals that hold the truth."""

    @property
    def is_held(self) -> bool:
        """True within the range that is promised, and where nothing is."""
        return math.isnan(self.coverage) or LOWEST <= self.coverage <= HIGHEST

    @property
    def share(self) -> str:
        """For people."""
        return "no interval" if math.isnan(self.coverage) else f"{self.coverage:.1%}"


def rows(num_runs: int, num_replicates: int, seed: int = 0) -> Iterator[Row]:
    """Of all campaigns; percentiles where there are five times the samples beyond that an interval asks for."""
    for name, campaign in CAMPAIGNS.items():
        for q in (0.5, 0.9, 0.99):
            if campaign.num_samples * campaign.num_repeats * (1 - q) >= 5 * bootstrap.MIN_TAIL_SAMPLES:
                yield Row(f"p{q * 100:g}", name, of_percentile(campaign, q, num_runs, num_replicates, seed))
        yield Row("ratio", name, of_ratio(campaign, 1.1, num_runs, num_replicates, seed))
    for name, campaign in (CAMPAIGNS | UNEVEN).items():
        yield Row("mean", name, of_mean(campaign, num_runs, num_replicates, seed))


def table(found: Sequence[Row], num_runs: int, num_replicates: int) -> str:
    """Markdown: campaigns down, figures across; a share outside of the range is struck out in bold."""
    shares = {(row.campaign, row.figure): row for row in found}
    campaigns, figures = (list(dict.fromkeys(names)) for names in zip(*shares, strict=True))
    num_out = sum(not row.is_held for row in found)
    margin = 1.96 * math.sqrt(0.95 * 0.05 / num_runs)
    lines = [
        f"Share of {num_runs:,} simulated campaigns whose nominal 95 % interval holds the truth; {num_replicates} replicates an interval. "
        f"A share of 95 % would be seen within +-{margin:.1%}.",
        "",
        f"Within {LOWEST:.0%} to {HIGHEST:.0%}: {len(found) - num_out} of {len(found)}{'; the others in bold' if num_out else ''}.",
        "",
        f"| campaign, repeats x samples | {' | '.join(figures)} |",
        f"|---|{'--:|' * len(figures)}",
    ]
    lines += [
        f"| {campaign} | {' | '.join(_cell(shares.get((campaign, figure))) for figure in figures)} |"
        for campaign in campaigns
    ]
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    return "" if row is None else row.share if row.is_held else f"**{row.share}**"


def main(words: Sequence[str] | None = None) -> int:
    """Print the shares as they are found; the exit code."""
    options = _parsed(words)
    if options.out:
        options.out.touch()  # before an hour is spent
    found = []
    for row in rows(options.runs, options.replicates, options.seed):
        print(f"{row.share:>11}  {row.figure} of {row.campaign}{'' if row.is_held else '  OUTSIDE'}", flush=True)
        found.append(row)
    if options.out:
        _write(options, found)
    return 0 if all(row.is_held for row in found) else 1


def _parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated campaigns of each kind (default 1000)")
    parser.add_argument(
        "--replicates", type=int, default=400, help="bootstrap replicates of each interval (default 400)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="result; the table goes to FILE.md")
    options = parser.parse_args(words)
    if min(options.runs, options.replicates) < 1:
        parser.error("--runs and --replicates must be at least 1")
    if options.out and options.out.suffix != ".json":
        parser.error(f"--out {options.out}: must end in .json")
    return options


def _write(options: argparse.Namespace, found: Sequence[Row]) -> None:
    result = {
        "nominal": bootstrap.LEVEL, "runs": options.runs, "replicates": options.replicates, "seed": options.seed,
        "lowest": LOWEST, "highest": HIGHEST, "is_held": all(row.is_held for row in found),
        "rows": [
            {**asdict(row), "coverage": None if math.isnan(row.coverage) else row.coverage, "is_held": row.is_held} for row in found
        ],
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = f"# Do the intervals hold what they promise?\n\n{table(found, options.runs, options.replicates)}"
    options.out.with_suffix(".md").write_text(text, "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
