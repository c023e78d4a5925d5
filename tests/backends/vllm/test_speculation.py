"""What follows from measurements. The first ones are real: vLLM 0.32 with the demo pair on two cores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.vllm.speculation import (
    MARGIN,
    OFF,
    Measurement,
    Rate,
    Setting,
    adjust,
    advice,
    best_depth,
    choose,
    cost,
    gain,
    nearest,
    rates_of,
    setting_of,
    setting_words,
    tokens_per_step,
    vary,
    worst_loss,
)

DEMO = Measurement(
    off={1: Rate(235), 2: Rate(467), 4: Rate(862), 8: Rate(1814)},
    on={
        1: {1: Rate(349, 1.81), 2: Rate(673, 1.81), 4: Rate(1194, 1.79), 8: Rate(1916, 1.80)},
        3: {1: Rate(444, 3.16), 2: Rate(761, 3.16), 4: Rate(1190, 3.10), 8: Rate(2177, 3.11)},
    },
)


def mixed(residue: float) -> Measurement:
    """Depth 2 wins at 1 stream and loses at 8; an engine that does both loses `residue` where it is off."""
    varied = Setting(2, ((1, 2, 2), (3, 8, 0)))
    return Measurement(
        off={1: Rate(100), 8: Rate(800)},
        on={2: {1: Rate(140, 2.1), 8: Rate(600, 2.1)}},
        varied=varied,
        varied_rates={1: Rate(140, 2.1), 8: Rate(800 * (1 - residue))},
    )


def test_a_step_costs_what_it_must_yield_to_break_even() -> None:
    assert gain(DEMO, 3, 1) == pytest.approx(444 / 235)
    assert cost(DEMO, 3, 1) == pytest.approx(1.67, abs=0.01)
    assert cost(DEMO, 3, 8) == pytest.approx(2.59, abs=0.01), "it costs more with more streams"


def test_the_best_depth_wins_by_more_than_the_margin_or_there_is_none() -> None:
    assert [best_depth(DEMO, num) for num in (1, 2, 4, 8)] == [3, 3, 1, 3]
    level = Measurement(off={1: Rate(100)}, on={2: {1: Rate(102, 1.9)}})
    assert best_depth(level, 1) == 0
    assert best_depth(Measurement(off={1: Rate(100)}, on={}), 1) == 0


def test_where_every_size_wants_the_same_there_is_no_schedule() -> None:
    assert setting_of({1: 3, 2: 3, 4: 3}) == Setting(3)
    assert setting_of({1: 0, 8: 0}) == OFF


def test_sizes_between_two_measured_ones_go_to_the_nearer() -> None:
    setting = setting_of({1: 4, 2: 4, 4: 2, 8: 0, 16: 0})
    assert setting == Setting(4, ((1, 2, 4), (3, 5, 2), (6, 16, 0)))
    assert [setting.depth_at(num) for num in (1, 2, 3, 5, 6, 16, 500)] == [4, 4, 2, 2, 0, 0, 0]


@given(st.dictionaries(st.integers(1, 300), st.integers(0, 8), min_size=1, max_size=9))
def test_a_schedule_covers_every_size_once_and_keeps_what_was_measured(depths: dict[int, int]) -> None:
    setting = setting_of(depths)
    for first, last, _ in setting.schedule:
        assert first <= last
    if setting.schedule:
        assert setting.schedule[0][0] == 1
        assert [first for first, _, _ in setting.schedule[1:]] == [last + 1 for _, last, _ in setting.schedule[:-1]]
        assert max(depth for _, _, depth in setting.schedule) == setting.depth
    assert {size: setting.depth_at(size) for size in depths} == depths


def test_the_simplest_setting_within_the_margin_is_chosen() -> None:
    assert choose(DEMO) == Setting(3)
    useless = Measurement(off={1: Rate(100), 8: Rate(800)}, on={2: {1: Rate(102, 2.0), 8: Rate(500, 2.0)}})
    assert choose(useless) == OFF


def test_a_schedule_is_chosen_only_if_the_rest_of_a_drafter_costs_less_than_it_wins() -> None:
    assert vary(mixed(0)).schedule == ((1, 2, 2), (3, 8, 0))
    assert choose(mixed(0.02)).schedule == ((1, 2, 2), (3, 8, 0))
    assert choose(mixed(0.12)).schedule, "12 % are lost at 8 streams, without it 29 % at 1"
    assert choose(mixed(0.4)) == Setting(2), "worse even than speculating at 8 streams"


def test_without_a_wider_win_the_rest_of_a_drafter_is_not_paid() -> None:
    small = mixed(0.12)
    little = Measurement(small.off, {2: {1: Rate(104, 1.5), 8: Rate(600, 1.5)}}, small.varied, small.varied_rates)
    assert choose(little) == OFF


@given(st.lists(st.tuples(*[st.floats(1, 1000)] * 4), min_size=1, max_size=5))
def test_nothing_that_was_measured_loses_less_than_the_choice_by_more_than_the_margin(
    rows: list[tuple[float, float, float, float]],
) -> None:
    sizes = [2**index for index in range(len(rows))]
    off, one, two, varied = ({size: Rate(row[n]) for size, row in zip(sizes, rows, strict=True)} for n in range(4))
    measured = Measurement(off, {1: one, 2: two}, Setting(2, ((1, 1, 2), (2, 99, 0))), varied)
    chosen = worst_loss(measured, choose(measured))
    for setting in (OFF, Setting(1), Setting(2), Setting(2, ((1, 1, 2), (2, 99, 0)))):
        assert chosen <= max(MARGIN, worst_loss(measured, setting))


def test_texts_that_accept_less_move_the_choice() -> None:
    assert choose(adjust(DEMO, 3, 3.1)) == Setting(3)
    poor = adjust(DEMO, 3, 1.3)
    assert poor.on[3][1].tokens_per_step == pytest.approx(1.3, abs=0.02)
    assert cost(poor, 3, 4) == pytest.approx(cost(DEMO, 3, 4)), "what a step costs does not depend on the text"
    assert poor.on[1][1].tokens_per_step == pytest.approx(1 + 0.81 * 0.3 / 2.1325, abs=0.01)
    assert choose(poor) == OFF
    rich = adjust(DEMO, 3, 9.0)
    assert rich.on[3][1].tokens_per_step == 4.0, "more than all drafts and one cannot be had"
    varied = adjust(mixed(0.02), 2, 1.0)
    assert varied.varied_rates[1].tokens_per_s == pytest.approx(140 / 2.1)
    assert varied.varied_rates[8] == mixed(0.02).varied_rates[8], "off is off, whatever the text"
    assert choose(varied) == OFF
    nothing = Measurement(off={1: Rate(100)}, on={2: {1: Rate(60, 1.0)}})
    assert adjust(nothing, 2, 2.0) == nothing


def test_advice_names_the_loss() -> None:
    found = advice(DEMO, Setting(3), 8, 1.4)
    assert found == "speculation loses at 8 streams: 1.40 tokens a step where 2.59 are needed"
    assert advice(DEMO, Setting(3), 1, 1.2).startswith("speculation loses at 1 stream: 1.20")
    assert advice(DEMO, Setting(3), 1, 1.64) == "", "level"
    assert advice(DEMO, Setting(3, ((1, 4, 3), (5, 8, 0))), 8, 1.0) == "", "it is off there"
    assert advice(DEMO, Setting(2), 8, 1.0) == "", "not measured"
    assert advice(DEMO, OFF, 8, 1.0) == ""


def test_the_nearest_size_is_by_ratio() -> None:
    sizes = (1, 2, 4, 8)
    assert [nearest(sizes, num) for num in (0, 1, 3, 5, 6, 300)] == [1, 1, 4, 4, 8, 8]
    assert nearest((1, 4), 2) == 4, "of two equally near ones the one where it pays less"


def test_tokens_of_a_step_count_steps_without_drafts_too() -> None:
    assert tokens_per_step(100, 0) == 1.0
    assert tokens_per_step(300, 200) == 3.0, "100 steps, each with 2 accepted"
    assert tokens_per_step(120, 20) == 1.2, "100 steps, in 10 of which 2 were proposed and accepted"
    assert tokens_per_step(0, 0) == 0.0


def test_settings_in_words() -> None:
    assert setting_words(OFF) == "off"
    assert setting_words(Setting(4)) == "depth 4"
    words = setting_words(Setting(4, ((1, 2, 4), (3, 11, 2), (12, 16, 0))))
    assert words == "depth by streams: 4 up to 2, 2 up to 11, then off"


def test_a_setting_that_was_not_measured_has_no_rates() -> None:
    with pytest.raises(KeyError):
        rates_of(DEMO, Setting(2))
