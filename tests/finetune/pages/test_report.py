"""The evaluation's page as text: whole, self-contained, escaped, and saying what the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finetune.dataset.text import shown
from finetune.errors import RecipeUnusable
from finetune.evaluation.result import Evaluation
from finetune.gating.errors import GateUnusable
from finetune.pages import report
from tests.finetune.pages.evaluations import CANDIDATE, EVIL, LIVE, LONG, OTHER, evaluation, verdict

_VOID = {"meta", "link", "br", "img", "line", "rect", "circle", "polyline"}
MAX_BYTES = 1_000_000


class Outline(HTMLParser):
    """Tags must close in order; what is loaded, which ids there are, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if given.get("id") else []
        self.loaded += [str(given[name]) for name in ("src", "href", "srcset", "action", "data") if name in given]
        assert not [name for name in given if name.startswith("on")], given
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., tuple[str, Outline]]:
    def write(found: Evaluation, document: dict[str, Any] | None = None) -> tuple[str, Outline]:
        report.write(found, tmp_path / "page.html", document)
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        outline = Outline()
        outline.feed(text)
        outline.close()
        assert outline.open == []
        return text, outline

    return write


def test_it_is_one_file_that_loads_nothing_and_runs_nothing(page: Callable[..., tuple[str, Outline]]) -> None:
    found = evaluation()
    text, outline = page(found, verdict(found))
    assert outline.loaded == ["data:,"]
    assert not {"script", "img", "iframe", "object", "form"} & set(outline.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert len(set(outline.ids)) == len(outline.ids)
    assert len(text.encode()) < MAX_BYTES
    assert LONG not in text
    assert "96,000 characters more" in text


def test_every_drawing_is_well_formed_and_says_what_it_shows(page: Callable[..., tuple[str, Outline]]) -> None:
    text, outline = page(evaluation())
    drawings = [ET.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(drawings) == 5
    for drawing in drawings:
        assert drawing.attrib["role"] == "img"
        assert {drawing.attrib["aria-labelledby"], drawing.attrib["aria-describedby"]} <= set(outline.ids)
        words = drawing.findtext("desc")
        assert words
        assert any(name in words for name in ("tickets", CANDIDATE.resolved))
        for mark in drawing.iter():
            for name in ("x", "y", "cx", "cy", "x1", "x2", "width", "height"):
                if name in mark.attrib:
                    assert -20 <= float(mark.attrib[name]) <= 460, mark.attrib


@pytest.mark.parametrize(
    ("general", "max_drop", "outcome", "style"),
    [
        (None, 3.0, "NO-GO", "bad"),
        ([], 3.0, "INCONCLUSIVE", "warn"),
        (["arithmetic"], 3.0, "INCONCLUSIVE", "warn"),
        (["arithmetic"], 40.0, "GO", "good"),
    ],
)
def test_the_outcome_is_what_the_gate_says(
    page: Callable[..., tuple[str, Outline]], general: list[str] | None, max_drop: float, outcome: str, style: str
) -> None:
    found = evaluation(num_items=300)
    document = verdict(found, general, max_drop)
    assert document["outcome"] == outcome
    text, outline = page(found, document)
    assert f'<div class="banner {style}"><p class="strong">{outcome}, by the rule improve</p>' in text
    words = "".join(outline.text)
    assert all(reason in words for reason in document["reasons"])
    task = document["task"]
    assert f"{task['lower']:+.1f} to {task['upper']:+.1f}" in words
    assert "the gate's: one-sided bounds" in words


def test_a_verdict_against_several_versions_is_told_with_its_own_numbers(
    page: Callable[..., tuple[str, Outline]],
) -> None:
    found = evaluation()
    document = verdict(found)
    document["live"] = [
        {"adapter": "support@aaaaaaaaaaaa", "weight": 9},
        {"adapter": "support@bbbbbbbbbbbb", "weight": 1},
    ]
    document["task"] = {**document["task"], "live": 0.123, "difference": document["task"]["lower"]}
    text, outline = page(found, document)
    assert "live: support@aaaaaaaaaaaa (9) and support@bbbbbbbbbbbb (1)" in text
    assert "12.3 %" in "".join(outline.text)


def test_without_a_verdict_it_says_so(page: Callable[..., tuple[str, Outline]]) -> None:
    words = "".join(page(evaluation())[1].text)
    assert "No verdict: these are measurements" in words
    assert "intervals of 95 %, by clusters" in words
    assert "support answers greetings in the style of the task." in words


def test_answers_that_changed_are_shown_escaped(page: Callable[..., tuple[str, Outline]]) -> None:
    found = evaluation(num_items=12)
    text, outline = page(found)
    assert "<script>" not in text
    assert "".join(outline.text).count(EVIL) > 10
    number = sum(line["answers"][0]["text"] != line["answers"][1]["text"] for line in found.answers)
    assert f"{number:,} answers are not what they were" in text
    alike = [{**line, "answers": [line["answers"][0]] * 2} for line in found.answers]
    assert "No answer changed." in page(replace(found, answers=alike))[0]


def test_several_candidates_and_none(page: Callable[..., tuple[str, Outline]]) -> None:
    several = evaluation((LIVE, CANDIDATE, OTHER))
    text, outline = page(several, verdict(several))
    assert len(set(outline.ids)) == len(outline.ids)
    assert text.count("<svg") == 10
    alone, _ = page(evaluation((LIVE,)))
    assert "<h1>Evaluation: demo@0123456789ab</h1>" in alone
    assert "<svg" not in alone


def test_what_was_not_measured_is_left_out(page: Callable[..., tuple[str, Outline]]) -> None:
    bare = evaluation(num_items=4)
    answers = [
        {**line, "answers": [{**one, "text": "", "latency_s": None} for one in line["answers"]]}
        for line in bare.answers
    ]
    nothing = {**bare.speed["by_model"][0], "ttft_ms": None, "latency_ms": None, "tokens_per_s": None}
    found = replace(
        bare, answers=answers, perplexity=None, judge=None, drift={"sets": {}, "changes": []},
        speed={"at_a_time": 1, "by_model": [nothing, nothing]},
    )  # fmt: skip
    text, _ = page(found)
    assert "Perplexity" not in text
    assert "Judged" not in text
    assert text.count("<svg") == 2


def test_a_verdict_about_something_else_is_refused(tmp_path: Path) -> None:
    found, document = evaluation(), verdict(evaluation())
    for changed, error, said in (
        ({"suite": f"sha256:{'b' * 64}"}, RecipeUnusable, "another suite"),
        (
            {"candidate": "support@bbbbbbbbbbbb"},
            RecipeUnusable,
            "is about support@bbbbbbbbbbbb, the evaluation about demo@",
        ),
        ({"format": "x"}, GateUnusable, "format is 'x'"),
    ):
        with pytest.raises(error, match=said):
            report.write(found, tmp_path / "page.html", {**document, **changed})
    assert not (tmp_path / "page.html").exists()


def test_titles_are_one_line(page: Callable[..., tuple[str, Outline]]) -> None:
    found = evaluation(num_items=4)
    lines = [{**line, "question": "first\nsecond " + "long " * 100} for line in found.answers]
    assert f">{shown('first second ' + 'long ' * 100)[:60]}" in page(replace(found, answers=lines))[0]
