"""The chart, path by path, against the flow chart that it was taken from."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway.decide.chart import CHART, Node, Outcome, Question, Way, follow, ways

FLOW_CHART = """
    Start[모델 성능 개선이 필요하다] --> Q1{프롬프트 엔지니어링으로<br/>해결 가능한가?}
    Q1 -->|Yes| PE[프롬프트 최적화<br/>비용: 0원, 시간: 1-2일]
    Q1 -->|No| Q2{외부 지식/문서 참조가<br/>핵심인가?}
    Q2 -->|Yes| RAG[RAG 파이프라인 구축<br/>비용: 중, 시간: 1-2주]
    Q2 -->|No| Q3{응답 형식/스타일을<br/>바꿔야 하는가?}
    Q3 -->|Yes| FT[파인튜닝<br/>비용: 높음, 시간: 2-4주]
    Q3 -->|No| Q4{도메인 전문 용어/지식이<br/>모델에 내재화되어야 하는가?}
    Q4 -->|Yes| FT
    Q4 -->|No| Q5{추론 속도가<br/>문제인가?}
    Q5 -->|Yes| OPT[양자화 + 추론 가속<br/>비용: 낮음, 시간: 1-3일]
    Q5 -->|No| RAG
"""
"""Of the article, as it is written there."""
NODES: dict[str, Node] = {
    "Q1": Question.PROMPTING, "Q2": Question.DOCUMENTS, "Q3": Question.FORMAT, "Q4": Question.TERMS, "Q5": Question.SPEED,
    "PE": Outcome.PROMPTING, "RAG": Outcome.RAG, "FT": Outcome.FINE_TUNING, "OPT": Outcome.OPTIMISATION,
}  # fmt: skip
ARROWS = {(match[1], match[2] == "Yes"): match[3] for match in re.finditer(r"(Q\d) -->\|(Yes|No)\| (\w+)", FLOW_CHART)}


def paths_of_the_article(node: str = "Q1", said: tuple[tuple[Question, bool], ...] = ()) -> Iterator[Way]:
    found = NODES[node]
    if isinstance(found, Outcome):
        yield Way(said, found)
        return
    for answer in (True, False):
        yield from paths_of_the_article(ARROWS[node, answer], (*said, (found, answer)))


def test_the_article_has_six_paths_to_four_outcomes() -> None:
    paths = list(paths_of_the_article())
    assert len(ARROWS) == 10
    assert [path.end for path in paths] == [
        Outcome.PROMPTING, Outcome.RAG, Outcome.FINE_TUNING, Outcome.FINE_TUNING, Outcome.OPTIMISATION, Outcome.RAG,
    ]  # fmt: skip


@pytest.mark.parametrize("path", [*paths_of_the_article()], ids=lambda path: f"{len(path.steps)}-{path.end}")
def test_each_of_them_is_followed(path: Way) -> None:
    assert follow(dict(path.steps)) == path


def test_there_are_no_others() -> None:
    assert list(ways()) == list(paths_of_the_article())
    assert {*CHART} == {*Question}


@pytest.mark.parametrize("path", [*paths_of_the_article()], ids=lambda path: f"{len(path.steps)}-{path.end}")
def test_part_of_a_way_ends_at_the_question_that_is_open(path: Way) -> None:
    for number in range(len(path.steps)):
        found = follow(dict(path.steps[:number]))
        assert found.end == path.steps[number][0]
        assert found.outcome is None


def test_answers_behind_an_open_question_do_not_count() -> None:
    found = follow({Question.FORMAT: True, Question.PROMPTING: False})
    assert found == Way(((Question.PROMPTING, False),), Question.DOCUMENTS)
