"""Do the intervals hold what they promise? Simulated campaigns whose true values are known, counted.

    python -m benchmarks.statistics.coverage --runs 5000

Latencies: autoregressive around a mean, as load that comes and goes makes them, or the waits of an M/M/1 queue, whose
neighbours share the same queue; both with or without repeats that differ by themselves. Prints the share of intervals
that hold the truth, for nominal 95 %.
"""

import argparse
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from benchmarks.statistics import bootstrap
from benchmarks.statistics.interval import Interval


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
    """Share of the intervals of `num_runs` campaigns that hold the truth; not a number where none was given."""
    rng = random.Random(seed)
    found = [estimate(campaign.repeats(rng)) for _ in range(num_runs)]
    held = [interval.contains(truth) for interval in found if interval is not None]
    return sum(held) / len(held) if held else math.nan


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


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated campaigns of each kind")
    parser.add_argument("--replicates", type=int, default=400, help="bootstrap replicates of each interval")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    spent = (options.runs, options.replicates, options.seed)
    for name, campaign in CAMPAIGNS.items():
        for q in (0.5, 0.9, 0.99):
            if campaign.num_samples * campaign.num_repeats * (1 - q) >= 5 * bootstrap.MIN_TAIL_SAMPLES:
                print(f"{of_percentile(campaign, q, *spent):7.1%}  p{q * 100:g} of {name}", flush=True)
        print(f"{of_ratio(campaign, 1.1, *spent):7.1%}  ratio of {name}", flush=True)
    for name, campaign in (CAMPAIGNS | UNEVEN).items():
        print(f"{of_mean(campaign, *spent):7.1%}  mean of {name}", flush=True)


if __name__ == "__main__":
    main()
