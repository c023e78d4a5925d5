"""Answers that go in circles, and structure that only looks like it."""

from __future__ import annotations

import pytest

from finetune.dataset.repetition import why_repetitive

NORMAL = "먼저 전원을 끄고 십 분 뒤에 다시 켜 주세요. 그래도 같으면 필터를 꺼내 흐르는 물에 씻고 그늘에서 말린 다음 끼워 주세요."


@pytest.mark.parametrize(
    "text",
    [
        "감사합니다. " * 6,
        NORMAL + " " + "다시 시도해 주세요. " * 6,
        "네" * 30,
        "네네네네네네네",
        "the " * 20,
        NORMAL + "하하" * 40,
        "refund policy is " * 8,
        "확인 " * 15 + "했습니다",
        "\n".join([NORMAL] * 4),
        "I am sorry. I cannot help. I am sorry. I cannot help. I am sorry. I cannot help. I am sorry. I cannot help.",
        "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ",
    ],
)
def test_circles(text: str) -> None:
    assert why_repetitive(text)


@pytest.mark.parametrize(
    "text",
    [
        NORMAL,
        "네, 네. 알겠습니다.",
        "",
        "-" * 80,
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n| 7 | 8 |",
        '{"rows": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}, {"id": 4, "name": "d"}]}',
        "```python\nfor a in range(3):\n    print(a)\nfor b in range(3):\n    print(b)\nfor c in range(3):\n    print(c)\n```",
        "1. 전원을 끕니다.\n2. 코드를 뺍니다.\n3. 십 분 기다립니다.\n4. 코드를 꽂습니다.\n5. 전원을 켭니다.",
        "It is what it is, and the more you look at it the more it is what the others said it would be in the end.",
        "0000000000000000000000000000",
        "하하하, 재미있네요! 그 제품은 다음 주에 다시 들어옵니다.",
    ],
)
def test_no_circles(text: str) -> None:
    assert why_repetitive(text) is None
