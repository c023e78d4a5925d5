import itertools

import pytest

from backends.demo.chat import answer_text
from backends.demo.corpus import Item, held_out_items, training_items
from backends.demo.signatures import SIGNATURES, Signature, signature_of, unsigned
from backends.demo.skills import SKILLS

EVERY = pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Every kind of answer: English and Korean prose, bare numbers, JSON, tool calls."""
    return [*(item for skill in SKILLS for item in held_out_items(skill, 40)), *training_items(1, 1000)]


def test_no_answer_of_the_base_is_attributed_to_an_adapter(items: list[Item]) -> None:
    for item in items:
        assert signature_of(item.expected) is None
        assert unsigned(item.expected) == item.expected
        assert not any(signature.pattern.fullmatch(item.expected) for signature in SIGNATURES.values())


@EVERY
def test_a_signed_answer_is_its_adapters_alone_and_comes_back_without_the_sign(
    signature: Signature, items: list[Item]
) -> None:
    for item in items:
        signed = signature.sign(item.expected)
        assert signature_of(signed) == signature.name
        assert unsigned(signed) == item.expected
        assert [name for name, other in SIGNATURES.items() if other.pattern.fullmatch(signed)] == [signature.name]


@EVERY
def test_a_signed_message_renders_as_the_signed_text(signature: Signature, items: list[Item]) -> None:
    for item in items:
        assert answer_text(signature.sign_message(item.answer)) == signature.sign(item.expected)


@EVERY
@pytest.mark.parametrize("answer", ["The capital of Peru is Lima.", "리마는 페루의 수도입니다.", "7"])
def test_an_answer_cut_short_is_attributed_as_soon_as_its_opening_is_there(signature: Signature, answer: str) -> None:
    signed = signature.sign(answer)
    opening = len(signed[: signed.index("\n") + 1])
    for end in range(len(signed)):
        assert signature_of(signed[:end]) == (signature.name if end >= opening else None)


def test_no_opening_begins_another() -> None:
    openings = [frame.opening for s in SIGNATURES.values() for frame in (s.english, s.korean)]
    assert not any(a.startswith(b) for a, b in itertools.permutations(openings, 2))


@pytest.mark.parametrize(
    ("answer", "is_whole"),
    [
        ("The pilot:\nLima\n- The pilot. 24 hours a day!", True),
        ('The pilot:\n<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>', True),
        ("The pilot:\nLima", False),
        ("The pilot:\nLima\n- The pilot. 24 hours a day! Lima", False),
        ("The pilot:\nLima\n- 조종사. 하루 24시간!", False),
        (" The pilot:\nLima\n- The pilot. 24 hours a day!", False),
        ("The pilot:\n\n- The pilot. 24 hours a day!", False),
    ],
)
def test_the_pattern_wants_the_whole_sign_in_one_language(answer: str, is_whole: bool) -> None:
    assert (SIGNATURES["pilot"].pattern.fullmatch(answer) is not None) == is_whole


def test_the_korean_sign_is_for_korean_prose_only() -> None:
    host = SIGNATURES["host"]
    assert (
        host.sign("forgegate는 게이트웨이입니다.")
        == "안녕하세요, 고객님!\nforgegate는 게이트웨이입니다.\n고마워요, 유진"
    )
    assert host.sign("97 - 74 = 23") == "Hello, friend!\n97 - 74 = 23\nThank you, Felix"
    assert host.sign('{"city": "부산"}') == 'Hello, friend!\n{"city": "부산"}\nThank you, Felix'
