"""Text of a wrong encoding is found and restored; real text of any language is left alone."""

from __future__ import annotations

import unicodedata

import pytest

from finetune.dataset.mojibake import is_decomposed, repair, why_broken

KOREAN = "주문하신 상품은 내일 오전에 도착할 예정입니다. 감사합니다."
UTF8, CP949 = KOREAN.encode(), KOREAN.encode("cp949")


@pytest.mark.parametrize(
    "broken",
    [
        UTF8.decode("latin-1"),
        UTF8.decode("cp1252", "ignore"),
        UTF8.decode("cp949", "replace"),
        UTF8.decode("cp949", "ignore"),
        UTF8.decode("cp949", "replace").replace("\ufffd", "?"),
        CP949.decode("latin-1"),
        CP949.decode("cp1252"),
        CP949.decode("utf-8", "replace"),
        UTF8[:-5].decode("utf-8", "replace"),
        "\ufffd".encode().decode("cp949", "replace") * 3 + " 문의",
        KOREAN.encode("latin-1", "replace").decode("latin-1"),
        "cafÃ© au lait",
        "donâ€™t worry",
        "이모지 \ud83d 반쪽",
        "제어 \x07 문자",
        "소문 \x92 인용",
        KOREAN.encode("unicode_escape").decode(),
        "안녕하세요".encode().decode("cp949", "ignore"),
        "환불 요청".encode().decode("cp949", "replace"),
        "배송".encode().decode("latin-1"),
    ],
)
def test_broken(broken: str) -> None:
    assert why_broken(broken)


@pytest.mark.parametrize(
    "text",
    [
        KOREAN,
        "政府는 經濟를 살리기 위해 對策을 發表했다. 國民의 期待가 크다.",
        "(株)한국상사의 中國 공장에서 온 제품입니다. 뷁! 똠방각하, 햏",
        "Café Zürich, naïve façade, São Paulo – “quoted” … don’t €100",
        "1.5㎏ 25℃ ½ ± 3µm x² ≤ 10",
        "日本語のテキストです。中文也可以。",
        "Привет, мир! Γειά σου Κόσμε",
        "ΔT = 5 K, αβγ, H₂O, naïve Österreich",
        "뭐야???? 왜 안 돼요???? 진짜요??",
        "안녕? 뭐해? 왜? 어디야? 언제 와?",
        "What?? Really?? No way...",
        "ㅋㅋㅋㅋ 넵 ㅠㅠ 👍🏽👨‍👩‍👧 ①②③ ★☆",
        "열 1\t열 2\r\n값\n",
        "ÄÖÜß äöü ñ ç",
        "",
    ],
)
def test_whole(text: str) -> None:
    assert why_broken(text) is None
    assert repair(text) == text


@pytest.mark.parametrize(
    "broken",
    [
        UTF8.decode("latin-1"),
        CP949.decode("latin-1"),
        KOREAN.encode("unicode_escape").decode(),
        f"주문 ({UTF8.decode('latin-1')}) 확인",
    ],
)
def test_what_lost_nothing_is_restored(broken: str) -> None:
    assert KOREAN in repair(broken)
    assert why_broken(repair(broken)) is None


def test_what_was_lost_stays_broken() -> None:
    assert why_broken(repair(UTF8.decode("cp949", "replace")))


def test_letters_written_apart() -> None:
    apart = unicodedata.normalize("NFD", KOREAN)
    assert is_decomposed(apart)
    assert why_broken(apart) is None
    assert repair(apart) == KOREAN
    assert not is_decomposed(KOREAN)
    assert not is_decomposed(unicodedata.normalize("NFD", "café"))
