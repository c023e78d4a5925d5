"""F1 and ROUGE-L of texts in English and Korean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.overlap import f1, rouge_l, tokens


def test_tokens_are_words_and_korean_syllables() -> None:
    assert tokens("Hello, World-2!") == ["hello", "world", "2"]
    assert tokens("서울은 KTX로 2시간") == ["서", "울", "은", "ktx", "로", "2", "시", "간"]
    assert tokens("ＡＢＣ") == ["abc"]  # wide forms are the same letters


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "The cat sat!", 1.0),
        ("the cat sat", "a dog ran", 0.0),
        ("the cat sat", "the cat", 0.8),
        ("the the cat", "the cat cat", 2 / 3),  # each as often as in both
        ("서울은", "서울이", 2 / 3),  # another particle is one syllable of three
        ("", "", 1.0),
        ("word", "", 0.0),
    ],
)
def test_f1(expected: str, answer: str, wanted: float) -> None:
    assert f1(expected, answer) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),  # the paper's own examples
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("a b c d", "d c b a", 0.25),
        ("환불은 3일 안에 됩니다", "환불은 3일 안에 됩니다.", 1.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l(expected: str, answer: str, wanted: float) -> None:
    assert rouge_l(expected, answer) == pytest.approx(wanted)


@given(st.text(), st.text())
def test_both_are_symmetric_shares_and_order_counts_for_one_only(left: str, right: str) -> None:
    assert 0 <= rouge_l(left, right) <= f1(left, right) <= 1
    assert f1(left, right) == f1(right, left)
    assert rouge_l(left, right) == rouge_l(right, left)
    assert f1(left, left) == rouge_l(left, left) == 1
