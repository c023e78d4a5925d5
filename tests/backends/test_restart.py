from __future__ import annotations

import pytest

from backends.restart import RestartPolicy

POLICY = RestartPolicy(first_delay_s=1.0, max_delay_s=8.0, max_early_deaths=6, window_s=100.0, stable_s=5.0)


def test_the_delay_doubles_up_to_its_bound_then_the_engine_is_given_up() -> None:
    early: tuple[float, ...] = ()
    delays = []
    for now in range(6):
        verdict = POLICY.after(early, float(now), ready_for_s=0.0, chance=1.0)
        early = verdict.early
        delays.append(verdict.delay_s)
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, None]


@pytest.mark.parametrize(("chance", "delay_s"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_spreads_over_the_upper_half(chance: float, delay_s: float) -> None:
    assert POLICY.after((), 0.0, 0.0, chance).delay_s == delay_s


def test_a_death_after_serving_for_a_while_starts_the_count_anew() -> None:
    verdict = POLICY.after((1.0, 2.0, 3.0, 4.0, 5.0), 20.0, ready_for_s=5.0, chance=1.0)
    assert verdict.early == ()
    assert verdict.delay_s == 1.0


def test_deaths_outside_the_window_are_forgotten() -> None:
    assert POLICY.after((0.0, 1.0, 2.0, 3.0, 99.0), 150.0, 0.0, 1.0).early == (99.0, 150.0)


def test_pauses_between_failed_starts_double_up_to_their_bound() -> None:
    policy = RestartPolicy(first_pause_s=5.0, max_pause_s=60.0)
    assert [policy.pause_s(num_failed) for num_failed in (1, 2, 3, 4, 5, 5000)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_none_never_gives_up_and_never_overflows() -> None:
    policy = RestartPolicy(max_delay_s=15.0, max_early_deaths=None, window_s=1e9)
    assert policy.after(tuple(map(float, range(5000))), 5000.0, 0.0, 1.0).delay_s == 15.0
