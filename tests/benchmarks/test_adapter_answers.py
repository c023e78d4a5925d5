"""The recogniser of signed answers: what a benchmark's verdict on versions rests on."""

from __future__ import annotations

import pytest

from backends.demo.signatures import SIGNATURES
from benchmarks import adapter_answers
from benchmarks.adapter_answers import MANNERS, fault_in, manner_of

ANSWERS = ("Paris.", "대한민국의 수도는 서울입니다.")


def test_it_knows_the_signatures_that_the_adapters_were_trained_on() -> None:
    assert set(MANNERS) == set(SIGNATURES)
    for name, signature in SIGNATURES.items():
        for answer in ANSWERS:
            signed = signature.sign(answer)
            assert manner_of(signed) == name
            assert fault_in(signed, name, is_whole=True) == ""


@pytest.mark.parametrize("other", MANNERS)
@pytest.mark.parametrize("name", MANNERS)
def test_an_answer_is_of_one_manner_alone(name: str, other: str) -> None:
    signed = SIGNATURES[name].sign("Paris.")
    assert (fault_in(signed, other, is_whole=True) == "") == (name == other)
    mixed = signed[: len(signed) // 2] + SIGNATURES[other].sign("Paris.")
    if name != other:
        assert fault_in(mixed, name, is_whole=False)
        assert fault_in(mixed, name, is_whole=True)


def test_the_end_of_one_behind_the_beginning_of_another_is_seen() -> None:
    mixed = SIGNATURES["tiger"].english.opening + "Paris." + SIGNATURES["pilot"].english.closing
    assert fault_in(mixed, "tiger", is_whole=True).startswith("tiger and pilot in one answer")


@pytest.mark.parametrize("text", ["Paris.", "hello, friend!\nParis."])
def test_an_unsigned_answer_is_nobodys(text: str) -> None:
    assert manner_of(text) == ""
    assert all(fault_in(text, name, is_whole=True) for name in MANNERS)


def test_only_a_cut_answer_may_lack_its_end_or_be_a_part_of_its_opening() -> None:
    assert fault_in("Hello, fri", "host", is_whole=False) == ""
    assert fault_in("", "host", is_whole=False) == ""
    assert fault_in("Hello, fri", "host", is_whole=True)
    assert fault_in("Hello, fri", "tiger", is_whole=False)
    assert fault_in("Hello, friend!\nParis.", "host", is_whole=False) == ""
    assert fault_in("Hello, friend!\nParis.", "host", is_whole=True)


def test_every_question_is_asked_once() -> None:
    assert len(set(adapter_answers.QUESTIONS)) == len(adapter_answers.QUESTIONS)
