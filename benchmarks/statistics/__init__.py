"""How sure a measurement is: pure functions over plain numbers, nothing of benchmarks/ imported, no dependency but the
standard library.

From a run's records to a sentence in its report, values in, frozen dataclasses out:

    steady.steady_window(times_s, series) -> Window | None           where warm-up ends and cool-down begins (MSER-5)
    steady.filled_window(first_tokens_s, ends_s, concurrency)        the same for a closed loop too short for that
    slices.per_second(events, window) -> list[float]                 a rate as a series: tokens per second of equal slices of time;
                                                                     events: benchmarks.metrics.token_arrivals(records)

    bootstrap.mean(repeats) -> Interval                              one series a repeat, in the order of time; of slices: a rate
    bootstrap.ratio(numerators, denominators) -> Interval            two series side by side, resampled together
    bootstrap.percentile(repeats, q) -> Interval | None              None with fewer than ten samples beyond it
    settled.settling(interval) -> Settling                           within +-5 % from three repeats, or how much more it would take

    difference.compare(a, b, is_higher_better) -> Difference         two results measured apart: better, worse, no difference shown
    difference.paired(pairs, is_higher_better) -> Difference         interleaved: one (A, B) a pair of runs
    difference.judged(interval, is_higher_better) -> Difference      a ratio that has its interval, such as bootstrap.ratio's of B's and
                                                                     A's latencies of the same requests

    slo.parse_slo(text) -> Slo                                       raises SloError
    goodput.goodput(outcomes, slo, duration_s) -> Goodput            outcomes: benchmarks.metrics.outcomes(records)
    binomial.binomial_test(num, num_missed, percentile)              PASSED, FAILED or UNDECIDED: the decision of capacity@SLO
    saturation.saturation(in_flight, ttft) -> Saturation             whether the queue only grows
    little.little(gauges, requests, window) -> LittleCheck           the engine's gauge against rate times latency

Randomness is seeded by an argument, so the same numbers give the same interval. A million samples take about a second.
`coverage.py` says how often the intervals hold the truth, and prints it for longer simulations than the tests run.
"""
