"""What the report draws. Pure: numbers in, SVG out; every figure says in words what it shows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import median

from finetune.pages.skill import Skill
from finetune.pages.svg import WIDTH, box, dot, figure, label, legend, line, short, ticks, trace

_ROW, _ROW_OF_BARS = 40.0, 48.0
_NUM_BINS = 24
_MOST_POINTS = 200


def differences(key: str, skills: Sequence[Skill]) -> str:
    """Each skill's difference with its interval, and the limit that it is held against."""
    ends = [value for skill in skills for value in (skill.lower, skill.upper, skill.limit, 0.0)]
    low, high = _padded(min(ends), max(ends))
    at = _Scale(low, high, 6, WIDTH - 6)
    bottom = _ROW * len(skills)
    parts = [line(at(tick), 0, at(tick), bottom, "zero" if tick == 0 else "axis") for tick in ticks(low, high)]
    for place, skill in enumerate(skills):
        y = _ROW * place
        middle = y + 28
        parts += [
            label(0, y + 13, short(skill.name, 34)),
            label(WIDTH, y + 13, f"{skill.difference:+.1f} ({skill.lower:+.1f} to {skill.upper:+.1f})", "end dim"),
            line(at(skill.limit), y + 19, at(skill.limit), y + 37, "limit"),
            line(at(skill.lower), middle, at(skill.upper), middle, f"interval {skill.mark}"),
            dot(at(skill.difference), middle, skill.mark),
        ]
    parts += [label(at(tick), bottom + 14, f"{tick:+g}" if tick else "0", "middle dim") for tick in ticks(low, high)]
    parts.append(
        label(WIDTH / 2, bottom + 30, "points of 100, candidate - live; dashed: what it has to lie above", "middle dim")
    )
    words = "; ".join(
        f"{one.name}: {one.difference:+.1f} points ({one.lower:+.1f} to {one.upper:+.1f})" for one in skills
    )
    return figure(key, "Differences, with intervals and limits", words, bottom + 36, parts)


def scores(key: str, skills: Sequence[Skill], names: tuple[str, str]) -> str:
    """Each skill's score before and after."""
    at = _Scale(0, 1, 0, WIDTH - 46)
    top = 34.0
    bottom = top + _ROW_OF_BARS * len(skills)
    parts = [legend(10, names)] + [
        line(at(tick), top + 4, at(tick), bottom, "axis") for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    for place, skill in enumerate(skills):
        y = top + _ROW_OF_BARS * place
        parts.append(label(0, y + 13, short(skill.name, 40)))
        for row, (value, style) in enumerate(((skill.live, "one"), (skill.candidate, "two"))):
            parts += [
                box(0, y + 18 + 12 * row, at(value), 10, style),
                label(WIDTH, y + 26.5 + 12 * row, f"{100 * value:.1f} %", "end dim"),
            ]
    parts += [
        label(at(tick), bottom + 15, f"{100 * tick:g}", "middle dim" if tick else "dim")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    words = "; ".join(f"{one.name}: {100 * one.live:.1f} % before, {100 * one.candidate:.1f} % now" for one in skills)
    return figure(key, "Scores, before and after", words, bottom + 20, parts)


def lengths(key: str, title: str, by_model: tuple[Sequence[int], Sequence[int]], names: tuple[str, str]) -> str:
    """Histogram of answers' characters, on a scale of powers of two, of which each bin is a part."""
    most = max(max(values, default=0) for values in by_model)
    end = math.log2(max(16, most) + 1)
    top, bottom = 34.0, 150.0
    at = _Scale(0, end, 0, WIDTH)
    shares = [_binned([math.log2(value + 1) for value in values], end) for values in by_model]
    height = _Scale(0, max(max(row) for row in shares) or 1, bottom, top + 12)
    width = WIDTH / _NUM_BINS
    parts = [legend(10, names)]
    parts += [
        box(place * width + 1, height(share), width - 2, bottom - height(share), "one")
        for place, share in enumerate(shares[0])
    ]
    outline = [(0.0, bottom)]
    for place, share in enumerate(shares[1]):
        outline += [(place * width, height(share)), ((place + 1) * width, height(share))]
    parts += [trace([*outline, (WIDTH, bottom)], "line-two"), line(0, bottom, WIDTH, bottom, "zero")]
    marks = [0, *(4**power for power in range(1, 12) if 4**power <= most)]
    for mark in marks:
        x = at(math.log2(mark + 1))
        parts.append(label(x, bottom + 15, f"{mark:,}", "middle dim" if mark else "dim"))
    parts.append(label(WIDTH, bottom + 31, "characters of an answer; height: share of answers", "end dim"))
    words = "; ".join(
        f"{name}: median {median(values):.0f} characters of {len(values)} answers" if values else f"{name}: no answers"
        for name, values in zip(names, by_model, strict=True)
    )
    return figure(key, title, words, bottom + 36, parts)


def latencies(key: str, title: str, by_model: tuple[Sequence[float], Sequence[float]], names: tuple[str, str]) -> str:
    """Which share of answers came within how many seconds."""
    rows = [sorted(values) for values in by_model]
    most = max(row[-1] for row in rows if row)
    top, bottom, left = 34.0, 170.0, 30.0
    at, height = _Scale(0, most, left, WIDTH - 6), _Scale(0, 1, bottom, top + 12)
    parts = [legend(10, names, are_lines=True)]
    for share in (0, 0.5, 0.95):
        parts += [
            line(left, height(share), WIDTH - 6, height(share), "axis"),
            label(left - 4, height(share) + 4, f"{100 * share:g} %", "end dim"),
        ]
    for row, style in zip(rows, ("line-one", "line-two"), strict=True):
        if row:
            parts.append(trace([(at(x), height(share)) for x, share in _steps(row, most)], style))
    parts += [label(at(tick), bottom + 15, f"{tick:g}", "middle dim") for tick in ticks(0, most)]
    parts.append(label(WIDTH, bottom + 31, "seconds", "end dim"))
    words = "; ".join(
        f"{name}: half of {len(row)} answers within {_within(row, 0.5):.3g} s, 95 % within {_within(row, 0.95):.3g} s"
        for name, row in zip(names, rows, strict=True) if row
    )  # fmt: skip
    return figure(key, title, words, bottom + 36, parts)


def _within(row: Sequence[float], share: float) -> float:
    """The value that so many are not above; `row` is sorted."""
    return row[max(0, math.ceil(share * len(row)) - 1)]


def _steps(row: Sequence[float], most: float) -> list[tuple[float, float]]:
    """The share of values up to each point; no more points than can be seen."""
    marks = (
        [0.0, *(most * place / _MOST_POINTS for place in range(1, _MOST_POINTS + 1))]
        if len(row) > _MOST_POINTS
        else [0.0, *row, most]
    )
    points: list[tuple[float, float]] = []
    for mark in marks:
        share = bisect_right(row, mark) / len(row)
        if points:
            points.append((mark, points[-1][1]))
        points.append((mark, share))
    return points


def _binned(values: Sequence[float], end: float) -> list[float]:
    counts = [0] * _NUM_BINS
    for value in values:
        counts[min(_NUM_BINS - 1, int(_NUM_BINS * value / end))] += 1
    return [count / max(1, len(values)) for count in counts]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = max(1.0, 0.06 * (high - low))
    return low - room, high + room


class _Scale:
    """From data to drawing."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._factor = (end - start) / (high - low or 1.0)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._factor
