"""Whether a question is new."""

from __future__ import annotations

import random

import pytest

from finetune.evaluation.overlap import rouge_l
from finetune.variants.novelty import Pool


@pytest.mark.parametrize(
    ("known", "text", "is_like"),
    [
        ("When will my sofa be delivered?", "when will my sofa be delivered", True),
        ("When will my sofa be delivered?", "When will my new sofa be delivered to me?", True),
        ("When will my sofa be delivered?", "My lamp arrived broken, what now?", False),
        ("소파는 언제 배송되나요?", "소파가 언제 배송되나요?", True),
        ("소파는 언제 배송되나요?", "비밀번호를 바꾸고 싶어요.", False),
        ("delivered be sofa my will when", "When will my sofa be delivered?", False),
    ],
)
def test_likeness_is_by_words_in_their_order(known: str, text: str, is_like: bool) -> None:
    pool = Pool()
    assert not pool.has_like(text)
    pool.add(known)
    assert pool.has_like(text) is is_like


def test_what_is_passed_over_is_never_too_like() -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 9))) for _ in range(60)]
    for limit in (0.3, 0.7, 1.0):
        for text in texts:
            for known in texts:
                pool = Pool(limit)
                pool.add(known)
                assert pool.has_like(text) is (rouge_l(known, text) >= limit)
