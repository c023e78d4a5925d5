"""Which rows are seeds, and which of them a request shows."""

from __future__ import annotations

from collections import Counter

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import to_row
from finetune.variants.seeds import Seed, Seeds, seeds_of

SEEDS = [
    *(Seed(number, "", f"What is the price of article number {number}?", "1") for number in range(1, 7)),
    *(Seed(number, "", f"상품 {number}번의 가격은 얼마인가요?", "1") for number in range(7, 10)),
    Seed(10, "Be brief.", "What is the price of the lamp?", "1"),
]


def test_one_question_with_one_answer_is_a_seed() -> None:
    records = [
        {"instruction": "Sum up", "input": "a long text", "output": "short"},
        {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
        {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{}]}]},
        {"instruction": "q", "output": " "},
    ]
    found, num_others = seeds_of(to_row(record, number) for number, record in enumerate(records, 1))
    assert found == [Seed(1, "", "Sum up\na long text", "short"), Seed(2, "S", "q", "a")]
    assert num_others == 3


def test_without_seeds_there_is_nothing_to_show() -> None:
    with pytest.raises(DataUnusable, match="none of the rows is a seed"):
        Seeds([])


def test_a_request_shows_seeds_of_one_kind_and_always_the_same() -> None:
    seeds, again = Seeds(SEEDS), Seeds(SEEDS)
    for number in range(50):
        shots = seeds.shots(number, 3, seed=7)
        assert shots == again.shots(number, 3, seed=7)
        assert len({(seed.system, seed.language) for seed in shots.seeds}) == 1
        assert len(set(shots.seeds)) == len(shots.seeds) <= 3
    assert [seeds.shots(number, 3, seed=8) for number in range(9)] != [
        seeds.shots(number, 3, seed=7) for number in range(9)
    ]


def test_every_seed_has_its_turn() -> None:
    shown = Counter(seed.number for number in range(300) for seed in Seeds(SEEDS).shots(number, 2, 0).seeds)
    assert set(shown) == set(range(1, 11))
