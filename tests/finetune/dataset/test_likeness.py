"""Which questions are the same: the decision on two texts, and how pairs are found among many."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from finetune.dataset.likeness import compare, gist_of, is_within
from finetune.dataset.similarity import Clusters, Frequencies, Signatures, candidate_pairs, grams, telling
from finetune.dataset.text import squash


def unknown(_: str) -> int:
    return 1


def known(_: str) -> int:
    return 50


def near(first: str, second: str, how_common: object = unknown) -> bool:
    return compare(gist_of(first), gist_of(second), how_common).is_near  # type: ignore[arg-type]


BASE = "어제 주문한 공기청정기 배송이 아직도 시작되지 않았는데 언제쯤 받을 수 있을까요?"
LONG = (
    "I ordered an air purifier last Tuesday and the tracking page still says that the parcel is waiting for the courier, "
    "although the shop promised delivery within two working days. When will it arrive?"
)


@pytest.mark.parametrize(
    "changed",
    [
        BASE.replace("?", "??!"),
        BASE.replace(" ", ""),
        BASE.replace("배송이", "배송은"),
        "안녕하세요! " + BASE + " 감사합니다.",
        BASE + " 빨리요",
        BASE.replace("공기청정기", "공기청정키"),
        BASE.replace("시작되지", "시작돼지"),
        BASE.replace("언제쯤 ", ""),
        BASE.replace("어제 주문한 공기청정기", "공기청정기 어제 주문한"),
    ],
)
def test_the_same_question_in_korean(changed: str) -> None:
    assert near(BASE, changed)
    assert near(changed, BASE)


@pytest.mark.parametrize(
    "changed",
    [
        LONG.upper(),
        LONG.replace("promised", "promissed"),
        "Hello, " + LONG + " Thanks!",
        LONG.replace("parcel is", "package is"),
        LONG.replace("ordered", "order"),
        LONG.replace("last Tuesday ", ""),
    ],
)
def test_the_same_question_in_english(changed: str) -> None:
    assert near(LONG, changed)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("주문번호 1234 환불해 주세요", "주문번호 1235 환불해 주세요"),
        ("3 + 4는 얼마인가요?", "3 - 4는 얼마인가요?"),
        ("지난주에 산 제품인데 환불 가능한가요?", "지난주에 산 제품인데 환불 불가능한가요?"),
        ("배송이 왔는데 상자가 열려 있어요", "배송이 안 왔는데 상자가 열려 있어요"),
        ("Is it allowed to return it after a week?", "Is it not allowed to return it after a week?"),
        ("노트북 환불해 주세요", "모니터 환불해 주세요"),
        ("환불 절차를 알려 주세요", "배송 일정을 알려 주세요"),
    ],
)
def test_another_question(first: str, second: str) -> None:
    assert not near(first, second)


def test_a_templates_own_words_make_another_question() -> None:
    """`package` for `parcel` once is a rewording; where both are words of the set, it is another row of a template."""
    assert near(LONG, LONG.replace("parcel", "package"), unknown)
    assert not near(LONG, LONG.replace("parcel", "package"), known)


def test_edits() -> None:
    assert is_within("refund", "refnud", 1)
    assert is_within("refund", "refud", 1)
    assert not is_within("refund", "refine", 1)
    assert is_within("환불요청", "환불요정", 1)


def test_pairs_are_found_among_rows_of_one_template() -> None:
    """Ten copies with a typing error among 3,000 rows that share nearly all their words."""
    rng = Random(5)
    letters = [chr(code) for code in range(0xAC00, 0xAC00 + 3000)]
    rows = [
        "다음 문의를 읽고 담당 부서를 정하세요. 고객이 말하기를 "
        + " ".join("".join(rng.sample(letters, 3)) for _ in range(12))
        for _ in range(3000)
    ]
    copies = {place: rows[place][:-2] + rows[place][-1] for place in rng.sample(range(3000), 10)}
    texts = [squash(text) for text in [*rows, *copies.values()]]
    counts = Frequencies()
    for text in texts:
        counts.add(grams(text))
    signatures = Signatures()
    for text in texts:
        signatures.add(grams(text), telling(grams(text), counts, len(texts)), 0)
    sizes = np.array([len(text) for text in texts], dtype=np.uint32)
    pairs = {(first, second) for first, second in candidate_pairs(signatures, sizes).tolist()}
    assert {(place, 3000 + number) for number, place in enumerate(copies)} <= pairs
    assert len(pairs) < 100


def test_texts_of_different_facets_share_no_key() -> None:
    found = grams(squash(BASE))
    signatures = Signatures()
    for facet in (1, 2, 2):
        signatures.add(found, found, facet)
    first, second, third = ({*keys} for keys in signatures.keys.tolist())
    assert not first & second
    assert second & third


def test_clusters_are_named_by_their_first_row() -> None:
    clusters = Clusters()
    for first, second in ((5, 9), (2, 9), (7, 8)):
        clusters.join(first, second)
    assert clusters.members() == {2: [2, 5, 9], 7: [7, 8]}
    assert clusters.find(4) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("My espresso machine cannot be registered for the warranty.", "My espresso machine canot be registered for the warranty."),
        ("The tracking page has never shown where my parcel is.", "The tracking page has nver shown where my parcel is."),
        ("The speaker does not turn on after the last update.", "The speaker doesnot turn on after the last update."),
        ("환불이 불가능하다고 들었는데 그 이유를 알고 싶습니다.", "환불이 불능가하다고 들었는데 그 이유를 알고 싶습니다."),
        ("배송이 안 된다고 나오는데 주소를 바꿔야 하나요?", "배송이 안된다고 나오는데 주소를 바꿔야 하나요?"),
    ],
)  # fmt: skip
def test_a_mistyped_negation_denies_the_same(first: str, second: str) -> None:
    assert near(first, second)
    assert near(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The speaker is not working after the last update.", "The speaker is now working after the last update."),
        ("Has the parcel never been at the depot in Busan?", "Has the parcel ever been at the depot in Busan?"),
        ("My espresso machine cannot be registered for it.", "My espresso machine can be registered for it."),
        ("Can I send it back without the box it came in?", "Can I send it back within the box it came in?"),
        ("배송이 시작되지 않았는데 언제쯤 받을 수 있을까요?", "배송이 시작되었는데 언제쯤 받을 수 있을까요?"),
    ],
)  # fmt: skip
def test_what_is_denied_is_another_question(first: str, second: str) -> None:
    assert not near(first, second)


def test_a_word_that_the_set_has_is_no_mistyped_negation() -> None:
    first, second = "Will the noting of my request take long today?", "Will nothing without my request take long today?"
    assert not near(first, second, known)
