"""What a row teaches, and how many rows that takes: the article's table of smallest and ideal sizes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from finetune.dataset.row import Row

CLASSIFICATION, SUMMARY, QA, CODE, FORMAT, CHAT = "classification", "summary", "qa", "code", "format", "chat"


@dataclass(frozen=True, slots=True)
class Task:
    min_rows: int
    ideal: tuple[int, int | None]
    unit: str
    max_answer_tokens: int
    note: str = ""


TASKS = {
    CLASSIFICATION: Task(500, (2000, 5000), "rows", 64, "at least 100 rows of each class"),
    SUMMARY: Task(1000, (3000, 5000), "rows", 1024),
    QA: Task(1000, (5000, 10000), "rows", 2048, "variety of questions decides"),
    CODE: Task(2000, (10000, None), "rows", 4096),
    FORMAT: Task(500, (1000, 2000), "rows", 4096),
    CHAT: Task(3000, (10000, None), "turns", 2048),
}
CODES = tuple(TASKS)
MIN_CLASS_ROWS = 100
MAX_LABEL_CHARS = 40
_SUMMARY = re.compile(r"요약|간추|summar|tl;dr", re.IGNORECASE)
_CODE_ASKED = re.compile(
    r"코드|함수|쿼리|스크립트|구현|프로그램|\bcode\b|\bfunction\b|\bscript\b|\bSQL\b|\bpython\b|\bregex\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|^\s*(?:def |class |import |from \w+ import|SELECT |#include|public |function |const |let )|[;{]\s*$",
    re.MULTILINE,
)
_CLASSIFY = re.compile(
    r"분류|카테고리|감정|감성|긍정|라벨|classif|categor|sentiment|\blabel\b|which (?:of|class)", re.IGNORECASE
)
_MARKUP = re.compile(r"\s*(?:```(?:json|xml|yaml)\s|<(\w+)[^>]*>.*</\1>\s*\Z)", re.DOTALL)


def hint(row: Row) -> str:
    """The task by the row alone. What only the whole set shows, short answers that recur, is not seen here."""
    answer = row.answer
    asked = row.instruction[:600] or row.user_text[:600]
    if _is_structured(answer):
        return FORMAT
    if is_label(answer) and _CLASSIFY.search(f"{row.system[:600]}\n{asked}"):
        return CLASSIFICATION
    if "```" in answer or (_CODE_ASKED.search(asked) and _CODE.search(answer)):
        return CODE
    if row.num_exchanges >= 2:
        return CHAT
    if _SUMMARY.search(asked) and len(row.user_text) > len(answer):
        return SUMMARY
    return QA


def is_label(answer: str) -> bool:
    """Short enough for the name of a class."""
    answer = answer.strip()
    return 0 < len(answer) <= MAX_LABEL_CHARS and "\n" not in answer and len(answer.split()) <= 4


def _is_structured(answer: str) -> bool:
    if _MARKUP.match(answer):
        return True
    if answer.lstrip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(json.loads(answer), dict | list)
    except (json.JSONDecodeError, RecursionError):
        return answer.lstrip()[:2] in ('{"', "[{")
