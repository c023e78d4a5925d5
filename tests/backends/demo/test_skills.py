import json
from itertools import pairwise

import pytest

from backends.demo.chat import answer_text
from backends.demo.corpus import Item, held_out_items
from backends.demo.skills import SKILLS
from backends.demo.skills.base import decorate, mentions, scores_all_phrases
from backends.demo.skills.tool_calls import parse_calls
from backends.demo.skills.words import particle


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_the_expected_answer_scores_one(name: str) -> None:
    for item in held_out_items(name, 400):
        assert item.score(item.expected) == 1.0, (item.check, item.expected)


@pytest.mark.parametrize("name", sorted(SKILLS))
def test_the_answer_to_another_question_scores_nothing(name: str) -> None:
    items = held_out_items(name, 300)
    pairs = [(a, b) for a, b in pairwise(items) if a.check != b.check and a.expected != b.expected]
    wrong = [a.score(b.expected) for a, b in pairs]
    assert len(pairs) > 30
    assert sum(wrong) / len(wrong) < 0.04, name


@pytest.mark.parametrize("name", sorted(SKILLS))
@pytest.mark.parametrize("answer", ["", "I do.", "{}", '{"category": "billing"}', "네.", "x" * 1000])
def test_empty_and_foreign_answers_score_nothing(name: str, answer: str) -> None:
    assert all(item.score(answer) == 0.0 for item in held_out_items(name, 100))


def find(name: str, kind: str) -> Item:
    return next(item for item in held_out_items(name, 400) if item.check[0] == kind)


def test_arithmetic_takes_the_last_number_of_a_short_answer() -> None:
    score = SKILLS["arithmetic"].score
    assert score(("42",), "12 + 30 = 42") == score(("42",), "42.") == score(("42",), "That is 42!") == 1.0
    assert score(("42",), "42 + 1 = 43") == score(("42",), "142") == score(("42",), "-42") == 0.0


def test_json_must_have_the_fields_and_types_and_nothing_around_it() -> None:
    item = find("json_answers", "json")
    expected = json.loads(item.expected)
    assert item.score(json.dumps(expected, indent=2)) == 1.0
    assert item.score(f"Sure! {item.expected}") == 0.0
    assert item.score(json.dumps({**expected, "extra": 1})) == 0.0
    assert item.score(json.dumps({key: str(value) + "?" for key, value in expected.items()})) == 0.0
    assert SKILLS["json_answers"].score(("json", '{"has_pet": true}'), '{"has_pet": 1}') == 0.0


def test_without_a_schema_the_answer_is_prose() -> None:
    item = find("json_answers", "prose")
    assert "{" not in item.expected
    assert item.score(json.dumps({"age": item.check[1], "city": item.check[2]})) == 0.0


def test_a_tool_call_is_scored_by_name_and_arguments() -> None:
    item = find("tool_calls", "call")
    calls = parse_calls(item.expected)
    assert calls is not None
    spaced = "<tool_call>" + json.dumps(calls[0], indent=1) + "</tool_call>"
    assert item.score(spaced) == 1.0
    assert item.score(item.expected.replace('"arguments": {', '"arguments": {"more": 1, ')) == 0.0
    assert item.score("I call it. " + item.expected) == 0.0
    assert item.score(item.expected.replace("<tool_call>", "")) == 0.0
    assert find("tool_calls", "none").score(item.expected) == 0.0


def test_the_tools_result_must_be_said() -> None:
    item = find("tool_calls", "said")
    assert item.messages[-1]["role"] == "tool"
    assert item.score(item.expected.replace(item.check[1], "@")) == 0.0


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (("end", "Paris", "OWL"), "The capital of France is Paris. OWL", "The capital of France is Paris."),
        (("begin", "Paris", "OWL"), "OWL The capital of France is Paris.", "The capital of France is Paris. OWL"),
        (("upper", "PARIS", ""), "THE CAPITAL OF FRANCE IS PARIS.", "The capital of France is PARIS."),
        (("korean", "파리", ""), "프랑스의 수도는 파리입니다.", "The capital of France is Paris."),
        (("english", "Paris", ""), "The capital of France is Paris.", "수도는 Paris입니다."),
        (("one word", "Paris", ""), "Paris.", "The capital is Paris."),
        (("persona", "Rosa", "Owl Bank"), "I am Rosa from Owl Bank.", "I am Forge from Owl Bank."),
    ],
)
def test_system_prompt_rules(check: tuple[str, ...], right: str, wrong: str) -> None:
    score = SKILLS["system_prompts"].score
    assert (score(check, right), score(check, wrong)) == (1.0, 0.0)


def test_not_knowing_must_come_first_and_in_the_language_of_the_question() -> None:
    score = SKILLS["unknown"].score
    assert score(("en",), "I don't know. I have no information about Brandoria.") == 1.0
    assert score(("en",), "The capital of Brandoria is Paris.") == score(("en",), "모르겠어요.") == 0.0
    assert score(("ko",), "모르겠어요. 벨도란에 대한 정보가 없어요.") == 1.0


def test_phrases_are_matched_as_words() -> None:
    assert mentions("It is 7.", "7")
    assert not mentions("It is 17.", "7")
    assert not mentions("Parisian", "Paris")
    assert mentions("수도는 파리입니다.", "파리")
    assert scores_all_phrases(("a|b", "!c"), "only b here") == 1.0
    assert scores_all_phrases(("a|b", "!c"), "b and c") == 0.0


def test_particles_follow_the_last_syllable() -> None:
    assert particle("대한민국", "은/는") == "대한민국은"
    assert particle("프랑스", "은/는") == "프랑스는"
    assert particle("LoRA", "을/를") == "LoRA를"


def test_decoration_keeps_what_is_asked() -> None:
    from random import Random

    texts = {decorate(Random(seed), "What is the capital of France?", "en") for seed in range(300)}
    assert len(texts) > 30
    assert all("the capital of France" in text for text in texts)


def test_the_expected_text_of_a_tool_call_has_the_templates_form() -> None:
    item = find("tool_calls", "call")
    assert answer_text(item.answer).startswith('<tool_call>\n{"name": "')
    assert item.expected.endswith("}\n</tool_call>")
