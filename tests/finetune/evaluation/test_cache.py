"""Answers that are kept."""

from __future__ import annotations

from pathlib import Path

from finetune.evaluation.cache import Answers, key_of
from finetune.evaluation.items import Answer, Item

ITEM = Item("1", "1", "Hello", ({"role": "user", "content": "안녕\u2028"},))
ANSWER = Answer("안녕\u2028하세요", "stop", 3, 4, 0.1, 0.2, (-1.5, -2.0))


def test_what_was_added_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.jsonl"
    with Answers(path) as answers:
        answers.add("a", ANSWER)
        assert answers.get("a") == ANSWER
    with Answers(path) as answers:
        assert (answers.get("a"), answers.get("b"), len(answers)) == (ANSWER, None, 1)


def test_a_line_that_a_crash_cut_off_is_passed_over_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    with Answers(path) as answers:
        answers.add("a", ANSWER)
        answers.add("b", ANSWER)
    path.write_bytes(path.read_bytes()[:-20])
    with Answers(path) as answers:
        assert (answers.get("a"), answers.get("b")) == (ANSWER, None)
        answers.add("c", ANSWER)
    with Answers(path) as answers:
        assert (answers.get("a"), answers.get("b"), answers.get("c")) == (ANSWER, None, ANSWER)


def test_without_a_path_they_are_in_memory() -> None:
    with Answers() as answers:
        answers.add("a", ANSWER)
        assert answers.get("a") == ANSWER


def test_all_that_decides_an_answer_is_in_its_key() -> None:
    request = ITEM.request(64, 0)
    keys = {
        key_of("demo@1", "chat", request),
        key_of("demo@2", "chat", request),
        key_of("demo@1", "given", request),
        key_of("demo@1", "chat", ITEM.request(65, 0)),
        key_of("demo@1", "chat", ITEM.request(64, 1)),
    }
    assert len(keys) == 5
    assert key_of("demo@1", "chat", ITEM.request(64, 0)) in keys
