import random

import pytest

from benchmarks.statistics.saturation import saturation, slope_of


def queue(load: float, duration_s: float, seed: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(in flight, ttft) of one server with rate 10 and Poisson arrivals, from empty."""
    rng = random.Random(seed)
    at, free_at, changes, ttft = 0.0, 0.0, [], []
    while at < duration_s:
        at += rng.expovariate(10 * load)
        free_at = max(at, free_at) + rng.expovariate(10)
        changes += [(at, 1), (free_at, -1)]
        ttft.append((at, free_at - at))
    num, in_flight = 0, []
    for moment, step in sorted(changes):
        num += step
        if moment <= duration_s:
            in_flight.append((moment, float(num)))
    return in_flight, ttft


def test_more_than_the_server_carries_is_seen():
    assert all(saturation(*queue(1.3, 60.0, seed)).is_saturated for seed in range(20))


def test_a_load_that_it_carries_is_not():
    found = sum(saturation(*queue(0.7, 60.0, seed)).is_saturated for seed in range(100))
    assert found <= 2


def test_a_queue_that_wanders_far_is_seldom_taken_for_one_that_grows():
    found = sum(saturation(*queue(0.9, 120.0, seed)).is_saturated for seed in range(50))
    assert found <= 5


def test_both_must_rise():
    rising = [(i / 10, float(i)) for i in range(600)]
    flat = [(i / 10, 1.0 + i % 3) for i in range(600)]
    assert saturation(rising, rising).is_saturated
    assert not saturation(rising, flat).is_saturated
    assert not saturation(flat, rising).is_saturated


def test_half_a_minute_is_needed():
    rising = [(i / 10, float(i)) for i in range(290)]
    assert not saturation(rising, rising).is_saturated


def test_only_the_last_two_minutes_are_looked_at():
    rising = [(float(i), float(i)) for i in range(100)]
    flat = [(100.0 + i, 99.0 + i % 2) for i in range(200)]
    found = saturation(rising + flat, rising + flat)
    assert found.duration_s == 120.0
    assert not found.is_saturated


def test_a_rise_that_is_small_is_none():
    slowly = [(i / 10, 100.0 + i / 600 * 5) for i in range(600)]
    found = saturation(slowly, slowly)
    assert found.in_flight is not None
    assert found.in_flight.slope > found.in_flight.margin
    assert not found.is_saturated


def test_slope_of_a_line():
    found = slope_of([(float(i), 3.0 + 2.0 * i) for i in range(100)], 0.0, 99.0)
    assert found is not None
    assert found.slope == pytest.approx(2.0)
    assert found.margin == pytest.approx(0.0, abs=1e-9)


def test_too_few_samples_say_nothing():
    assert saturation([], []).is_saturated is False
    found = saturation([(0.0, 1.0), (60.0, 2.0)], [(0.0, 1.0)])
    assert found.in_flight is None
    assert not found.is_saturated
