import random
from functools import cache

import pytest

from benchmarks.statistics.little import little, time_weighted_mean
from benchmarks.statistics.steady import Window

WINDOW = Window(100.0, 200.0)


@cache
def simulated(seed: int = 1) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(gauges, requests): Poisson arrivals, exponential times, the gauge read each 100 ms."""
    rng = random.Random(seed)
    requests, at = [], 0.0
    while at < 300:
        at += rng.expovariate(8)
        requests.append((at, at + rng.expovariate(1)))
    times = [i / 10 for i in range(3000)]
    return [(moment, float(sum(sent <= moment < end for sent, end in requests))) for moment in times], requests


def test_an_honest_server_agrees():
    gauges, requests = simulated()
    found = little(gauges, requests, WINDOW)
    assert found.not_judged is None
    assert found.error is not None
    assert found.error < 0.01
    assert not found.is_fault
    assert found.latency_s is not None
    assert found.rate * found.latency_s == pytest.approx(found.num_in_flight)


def test_traffic_of_others_is_a_fault():
    gauges, requests = simulated()
    found = little([(at, value + 1.0) for at, value in gauges], requests, WINDOW)
    assert found.is_fault
    assert found.error == pytest.approx(1 / 9, rel=0.15)


def test_answers_that_the_engine_did_not_make_are_a_fault():
    gauges, requests = simulated()
    found = little([(at, 0.0) for at, _ in gauges], requests, WINDOW)
    assert found.is_fault
    assert found.error == 1.0


def test_requests_in_lockstep_are_no_fault_wherever_the_window_begins():
    requests = [(float(i), i + 1.0) for i in range(300) for _ in range(4)]
    gauges = [(i / 10, 4.0) for i in range(3000)]
    for offset in (0.0, 0.25, 0.5, 0.99):
        found = little(gauges, requests, Window(100 + offset, 125 + offset))
        assert found.error == pytest.approx(0.0, abs=1e-9)


def test_a_short_window_is_not_judged():
    gauges, requests = simulated()
    found = little(gauges, requests, Window(100.0, 110.0))
    assert found.error is None
    assert not found.is_fault
    assert found.not_judged is not None
    assert "20 are needed" in found.not_judged


def test_an_empty_window_is_not_judged():
    assert little([], [], WINDOW).not_judged == "no request was sent in the window"


def test_a_gauge_with_holes_is_not_judged():
    gauges, requests = simulated()
    holed = [(at, value) for at, value in gauges if not 140 < at < 155]
    for few in (holed, gauges[::100]):
        found = little(few, requests, WINDOW)
        assert found.error is None
        assert found.not_judged is not None
        assert "not read often enough" in found.not_judged


def test_readings_count_by_their_time():
    often = [(i / 100, 2.0) for i in range(5000)]
    seldom = [(50 + i * 2.0, 6.0) for i in range(25)]
    mean = time_weighted_mean(often + seldom, Window(0.0, 100.0))
    assert mean == pytest.approx(4.0, rel=0.01)
