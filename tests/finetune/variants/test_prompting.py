"""What is asked, and what is read from replies as models write them."""

from __future__ import annotations

import pytest

from finetune.variants.prompting import Pair, asked_apart, messages, read, response_format
from finetune.variants.seeds import Seed, Shots

KOREAN = Shots((
    Seed(1, "JSON으로만 답하세요.", "소파 배송은 언제 되나요?", '{"topic": "배송"}'),
    Seed(4, "JSON으로만 답하세요.", "램프가 깨져서 왔어요.", '{"topic": "교환"}'),
))  # fmt: skip
PLAIN = Shots((Seed(1, "", "1 + 1?", "2"),))


def test_the_seeds_their_language_and_their_instructions_are_shown() -> None:
    (message,) = messages(KOREAN, 5, with_answers=True)
    text = message["content"]
    assert '{"question": "소파 배송은 언제 되나요?", "answer": "{\\"topic\\": \\"배송\\"}"}' in text
    assert "Write 5 new questions with their answers of the same kind, in Korean." in text
    assert "JSON으로만 답하세요." in text
    (message,) = messages(PLAIN, 2, with_answers=False)
    assert '{"question": "1 + 1?"}' in message["content"]
    assert "in the language of the examples" in message["content"]
    assert "instructions" not in message["content"]
    assert "answer" not in message["content"]


def test_a_question_is_asked_apart_as_a_client_asks_it() -> None:
    assert asked_apart(PLAIN, "2 + 2?") == [{"role": "user", "content": "2 + 2?"}]
    assert asked_apart(KOREAN, "x")[0] == {"role": "system", "content": "JSON으로만 답하세요."}


@pytest.mark.parametrize(
    "reply",
    [
        '{"question": "a", "answer": "1"}\n{"question": "b", "answer": "2"}',
        '```json\n[{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]\n```',
        'Sure! Here they are:\n1. {"question": " a ", "answer": "1"}\n\n2. {"answer": "2", "question": "b", "why": {}}\nDone.',
        '{\n  "question": "a",\n  "answer": "1"\n}\n{\n  "question": "b",\n  "answer": "2"\n}',
    ],
)
def test_pairs_are_found_however_they_are_written(reply: str) -> None:
    assert read(reply, with_answers=True) == ([Pair("a", "1"), Pair("b", "2")], 0)


@pytest.mark.parametrize(
    ("reply", "pairs", "num_unusable"),
    [
        ("", [], 0),
        ("I cannot do that.", [], 0),
        ('{"question": "a", "answer": "1"}\n{"question": "b", "ans', [Pair("a", "1")], 1),
        ('{"question": "a"}\n{"answer": "1"}\n{"question": "", "answer": "1"}', [], 3),
        ('{"question": "a", "answer": {"topic": "배송"}}', [Pair("a", '{"topic": "배송"}')], 0),
        ('{"question": 5, "answer": "1"}', [], 1),
        ("{" * 3000, [], 1),
    ],
)
def test_the_rest_is_counted(reply: str, pairs: list[Pair], num_unusable: int) -> None:
    assert read(reply, with_answers=True) == (pairs, num_unusable)


def test_a_list_as_the_schema_has_it_is_read_too() -> None:
    reply = '{"examples": [{"question": "a", "answer": "1"}, {"question": ""}, 5]}'
    assert read(reply, with_answers=True) == ([Pair("a", "1")], 2)
    schema = response_format(3, with_answers=True)["json_schema"]["schema"]
    assert schema["properties"]["examples"]["maxItems"] == 3
    assert schema["properties"]["examples"]["items"]["required"] == ["question", "answer"]
    apart = response_format(3, with_answers=False)["json_schema"]["schema"]
    assert [*apart["properties"]["examples"]["items"]["properties"]] == ["question"]


def test_without_answers_a_question_is_enough() -> None:
    assert read('{"question": "a"}\n{"question": "b", "answer": "2"}', with_answers=False) == (
        [Pair("a", ""), Pair("b", "")],
        0,
    )
