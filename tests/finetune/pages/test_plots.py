"""Drawings at their edges: one value, none, huge ones, shares of nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from finetune.pages.plots import differences, latencies, lengths, scores
from finetune.pages.skill import Skill
from finetune.pages.svg import ticks

NAMES = ("live: demo", "candidate: <support> & co")


def drawn(text: str) -> tuple[ET.Element, str]:
    found = re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert found
    drawing = ET.fromstring(found[0])
    words = drawing.findtext("desc")
    assert words
    return drawing, words


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-31, 54, [-20, 0, 20, 40]),
        (0, 0.003, [0, 0.001, 0.002, 0.003]),
        (0, 1e6, [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("lower", "upper", "limit", "style"), [(-1, 2, -3, "good"), (-8, -4, -3, "bad"), (-8, 1, -3, "unsure"), (0.1, 5, 0, "good")]
)  # fmt: skip
def test_a_difference_is_coloured_by_its_limit(lower: float, upper: float, limit: float, style: str) -> None:
    skill = Skill("<b>skill</b>", 0.5, 0.5, (lower + upper) / 2, lower, upper, limit)
    drawing, words = drawn(differences("key", [skill]))
    assert {mark.attrib["class"] for mark in drawing.iter() if mark.tag == "circle"} == {style}
    assert words.startswith("<b>skill</b>: ")


def test_extreme_scores_stay_inside() -> None:
    skills = [Skill("all", 0, 1, 100, 100, 100, 0), Skill("nothing", 1, 0, -100, -100, -100, -3)]
    for text in (differences("key", skills), scores("key", skills, NAMES)):
        drawing, _ = drawn(text)
        for mark in drawing.iter():
            for name in ("x", "cx", "x1", "x2"):
                assert -1 <= float(mark.attrib.get(name, 0)) <= 401
    assert (
        drawn(scores("key", skills, NAMES))[1] == "all: 0.0 % before, 100.0 % now; nothing: 100.0 % before, 0.0 % now"
    )


@pytest.mark.parametrize("values", [[0], [1], [100_000], [3, 3, 3], list(range(1000))])
def test_lengths_of_any_size(values: list[int]) -> None:
    drawing, words = drawn(lengths("key", "title", (values, [0]), NAMES))
    bars = [float(mark.attrib["height"]) for mark in drawing.iter() if mark.attrib.get("class") == "one"][1:]
    assert len(bars) == 24
    assert 0 < max(bars) <= 116
    assert "live: demo: median" in words
    assert "no answers" in drawn(lengths("key", "title", (values, []), NAMES))[1]


def test_latencies_rise_to_all() -> None:
    for row in ([0.5], [float(number) for number in range(1, 5001)]):
        drawing, words = drawn(latencies("key", "title", (row, [0.1]), NAMES))
        live, candidate = (
            [tuple(map(float, point.split(","))) for point in mark.attrib["points"].split()]
            for mark in drawing.iter() if mark.tag == "polyline"
        )  # fmt: skip
        heights = [y for _, y in live]
        assert heights == sorted(heights, reverse=True), "it never falls"
        assert (heights[-1], candidate[-1][1]) == (46, 46)
        assert len(live) < 500
        assert f"95 % within {0.95 * len(row):.3g} s" in words or len(row) == 1
    assert "polyline" in latencies("key", "title", ([], [0.1]), NAMES)
