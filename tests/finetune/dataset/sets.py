"""Whole sets with a fault of the set, and without: seeded, imports nothing of the code under test."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.finetune.dataset.tickets import KO_PROBLEMS, KO_PRODUCTS, Record, alpaca, distinct, ticket

MakeSet = Callable[[Random], list[Record]]
CLASSES = ("배송", "결제", "고장", "교환", "기타")


def clean(rng: Random) -> list[Record]:
    return list(distinct(rng, 1200))


def labelled(rng: Random, weights: tuple[int, ...] = (5, 5, 4, 4, 4), count: int = 1200) -> list[Record]:
    """Tickets to sort into classes, with one instruction for all."""
    rows = []
    for record in distinct(rng, count):
        label = rng.choices(CLASSES, weights)[0]
        rows.append(
            {"instruction": "다음 문의를 알맞은 부서로 분류하세요.", "input": record["instruction"], "output": label}
        )
    return rows


def small(rng: Random) -> list[Record]:
    return list(distinct(rng, rng.randint(60, 900)))


def unbalanced(rng: Random) -> list[Record]:
    return labelled(rng, (90, 40, 40, 40, rng.randint(1, 6)))


def listed(rng: Random) -> list[Record]:
    """Most answers are numbered or dotted."""
    mark = rng.choice(("{n}. ", "- ", "* ", "{n}) "))
    share = rng.uniform(0.55, 0.95)
    rows = clean(rng)
    for row in rows:
        if rng.random() < share:
            parts = row["output"].rstrip(".").split(". ")
            row["output"] = "\n".join(mark.format(n=place) + part for place, part in enumerate(parts, 1))
    return rows


def brief(rng: Random) -> list[Record]:
    """Every answer is a few words."""
    words = ("네, 됩니다 {n}", "그건 안 돼요 {n}", "확인할게요 {n}", "곧 보내요 {n}")
    rows = clean(rng)
    for row in rows:
        row["output"] = rng.choice(words).format(n=rng.randrange(10**6))
    return rows


def strays(rng: Random) -> list[Record]:
    """Korean with a few English answers to English questions."""
    count = rng.randint(8, 40)
    rows = list(distinct(rng, 1200, lambda random: alpaca(random, "ko")))
    return rows + list(distinct(rng, count, lambda random: alpaca(random, "en")))


def monotonous(rng: Random) -> list[Record]:
    """One question with other numbers."""
    problem = rng.choice(KO_PROBLEMS)
    return [
        {
            "instruction": f"주문 {place + 10000}번 {problem}. 처리해 주세요.",
            "input": "",
            "output": ticket(rng, "ko")[1],
        }
        for place in range(1200)
    ]


def patchwork(rng: Random) -> list[Record]:
    """Every question from one template of few words."""
    cities, days = (
        ("서울", "부산", "대구", "인천", "광주", "대전", "울산", "수원"),
        ("어제", "오늘 아침에", "지난주에", "방금", "월요일에"),
    )
    combos = [
        (city, day, product, problem)
        for city in cities
        for day in days
        for product in KO_PRODUCTS[:8]
        for problem in KO_PROBLEMS[:8]
    ]
    return [
        {
            "instruction": f"{city}에서 {day} 받은 {product} {problem}. 어떻게 할까요?",
            "input": "",
            "output": ticket(rng, "ko")[1],
        }
        for city, day, product, problem in rng.sample(combos, 1200)
    ]


def chorus(rng: Random) -> list[Record]:
    """Answers that all begin alike."""
    opening = rng.choice(("안녕하세요 고객님, 문의해 주셔서", "Thank you for contacting us;"))
    rows = clean(rng)
    for row in rows:
        row["output"] = f"{opening} {row['output']}"
    return rows


FAULTY: dict[str, tuple[MakeSet, ...]] = {
    "size": (small,),
    "class_balance": (unbalanced,),
    "list_bias": (listed,),
    "length_bias": (brief,),
    "language_bias": (strays,),
    "diversity": (monotonous, patchwork, chorus),
}
CLEAN: tuple[MakeSet, ...] = (clean, labelled)
