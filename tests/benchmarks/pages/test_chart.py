"""Charts: where things are drawn, and what is said of them."""

from __future__ import annotations

import re

import pytest

from benchmarks.pages.chart import HEIGHT, WIDTH, Chart, Series, draw
from benchmarks.pages.scale import Scale, fitted


def a_chart(**changes: object) -> Chart:
    series = (Series("<p50>", ((1.0, 10.0), (8.0, 40.0)), ((9.0, 11.0), (38.0, 43.0))),)
    fields = {"key": "k", "title": "A & B", "x_label": "streams", "y_label": "ms", "series": series, **changes}
    return Chart(**fields)  # type: ignore[arg-type]


def test_a_scale_maps_its_ends_and_clips_what_lies_outside() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(value) for value in (0, 5, 10, 12, -1)] == [100, 150, 200, 200, 100]
    log = Scale(1.0, 100.0, 0.0, 2.0, is_log=True)
    assert [log(value) for value in (1, 10, 100)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "is_log", "expected"),
    [
        (0.0, 10.0, False, [0, 2, 4, 6, 8, 10]),
        (0.0, 0.35, False, [0, 0.1, 0.2, 0.3]),
        (1.0, 100.0, True, [1, 2, 5, 10, 20, 50, 100]),
        (20.0, 50.0, True, [20, 30, 40, 50]),
        (1.0, 10_000.0, True, [1, 10, 100, 1000, 10_000]),
    ],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, is_log: bool, expected: list[float]) -> None:
    assert Scale(low, high, 0, 1, is_log).ticks() == pytest.approx(expected)


@pytest.mark.parametrize("values", [[0.0], [3.0], [3.0, 3.0], [0.0, 0.0, 7.0], [1e-9, 1e9]])
@pytest.mark.parametrize("is_log", [False, True])
def test_a_fitted_scale_holds_every_value(values: list[float], is_log: bool) -> None:
    scale = fitted(values, 0.0, 1.0, is_log)
    assert scale.low < scale.high
    assert scale.high >= max(values)
    assert all(0.0 <= scale(value) <= 1.0 for value in values)
    assert is_log or scale.low == 0.0, "a linear axis begins at zero, so that heights can be compared"


def test_points_lie_within_the_figure_and_higher_values_higher() -> None:
    drawn = draw(a_chart())
    (points,) = re.findall(r'<polyline points="([^"]+)"', drawn)
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in points.split())
    assert 0 < x0 < x1 <= WIDTH
    assert 0 < y1 < y0 < HEIGHT
    assert drawn.count("<circle") == 2
    assert drawn.count("<polygon") == 1


def test_every_text_is_escaped_and_the_figure_says_what_it_shows() -> None:
    drawn = draw(a_chart(limits=(("limit <30>", 30.0),)))
    assert "<p50>" not in drawn
    assert "A & B" not in drawn
    assert "limit <30>" not in drawn
    assert "&lt;p50&gt;: 10 at 1, 40 at 8" in drawn
    assert 'class="limit"' in drawn


def test_a_chart_without_a_point_is_refused() -> None:
    empty = a_chart(series=(Series("none", ()),))
    assert empty.is_empty
    with pytest.raises(ValueError, match="'k' has no point"):
        draw(empty)


def test_one_series_has_no_legend_and_seven_share_the_styles() -> None:
    assert "legend" not in draw(a_chart())
    drawn = draw(a_chart(series=tuple(Series(f"n{number}", ((1.0, number + 1.0),)) for number in range(7))))
    assert [f"n{number}</li>" in drawn for number in range(7)] == [True] * 7
    assert 'class="s6"' not in drawn
