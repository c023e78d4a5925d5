"""Personal data is found by checksum and surroundings; look-alikes are not."""

from __future__ import annotations

import time
from datetime import date

import pytest

from backends.personal import find, is_resident_number, mask, passes_luhn


def kinds(text: str) -> list[str]:
    return [found.kind for found in find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("주민번호는 900101-1234568 입니다", "rrn"),
        ("주민등록번호: 9001011234568", "rrn"),
        ("９００１０１－１２３４５６８ 입니다", "rrn"),
        ("아이는 210305-3123456", "rrn"),
        ("연락처 010-1234-5678로 전화 주세요", "phone"),
        ("01012345678입니다", "phone"),
        ("010.1234.5678", "phone"),
        ("010 1234 5678", "phone"),
        ("+82-10-1234-5678", "phone"),
        ("+82 10 1234 5678", "phone"),
        ("집은 02-123-4567", "phone"),
        ("(031) 123-4567", "phone"),
        ("031)123-4567", "phone"),
        ("070-1234-5678", "phone"),
        ("call me at (415) 555-0132", "phone"),
        ("call 415-555-0132 please", "phone"),
        ("+1 415 555 0132", "phone"),
        ("+44 20 7946 0958", "phone"),
        ("카드 4111-1111-1111-1111", "card"),
        ("card 4111 1111 1111 1111", "card"),
        ("card number 4111111111111111", "card"),
        ("amex 3782-822463-10005", "card"),
        ("1234-5678-9012-3452로 결제했어요", "card"),
        ("전화번호는 0212345678입니다", "phone"),
        ("110-234-567890으로 보내 주세요", "account"),
        ("메일은 gildong.hong@naver.com 입니다", "email"),
        ("메일은 gildong.hong@naver.com입니다", "email"),
        ("write to jane+shop@mail.example.org.", "email"),
        ("국민은행 123456-01-234567로 입금", "account"),
        ("계좌번호는 110-123-456789 신한입니다", "account"),
        ("카카오뱅크 3333-01-1234567", "account"),
        ("계좌번호 11012345678901", "account"),
        ("302-1234-5678-91 (농협) 예금주 홍길동", "account"),
        ("my bank account number is 000123456789", "account"),
        ("IBAN DE89 3704 0044 0532 0130 00", "account"),
        ("면허번호 11-22-333333-44", "licence"),
        ("key sk-proj-abcdefghijklmnopqrstuvwxyz012345", "secret"),
        ("AKIAIOSFODNN7EXAMPLE", "secret"),
        ("키는ghp_0123456789abcdefghijklmnopqrstuvwxyz 입니다", "secret"),
    ],
)
def test_found(text: str, expected: str) -> None:
    assert kinds(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "고객센터 1588-1234, 080-123-4567",
        "call 1-800-555-0132 or 800-555-0132",
        "support@shop.com, help@shop.co.kr, no-reply@shop.com",
        "주문번호 20240513-1234567",
        "주문번호 900101-1234567",
        "주민번호 900101-1****** 처럼 가려 주세요",
        "991332-1234567은 없는 날짜입니다",
        "운송장 123456789012, 송장번호 1234-5678-9012",
        "주문번호 4111111111111111",
        "카드 4111-1111-1111-1112",
        "쿠폰 번호 1234-5678-9012-3452",
        "product key 1234-5678-9012-3452",
        "운송장 110-234-567890",
        "0000-0000-0000-0000",
        "2024-05-13 10:30:00부터 2024-06-13까지",
        "은행은 2024-05-13에 쉽니다",
        "사업자등록번호 123-45-67890",
        "모델 FX-100-2000-3000, 버전 10.0.19045.4412",
        "IP 192.168.100.200, 포트 8080",
        "금액은 1,234,567,890원입니다",
        "icon@2x.png, @user, user@localhost",
        "ISBN 979-11-123-4567-8",
        "30 000 000 000",
        "1234567890123",
        "접수번호 2024-0000-1234",
        "π = 3.14159265358979",
    ],
)
def test_not_found(text: str) -> None:
    assert kinds(text) == []


def test_resident_numbers_since_october_2020_have_no_checksum() -> None:
    assert is_resident_number("2103053123456", today=date(2024, 1, 1))
    assert not is_resident_number("2103053123456", today=date(2021, 1, 1))
    assert not is_resident_number("9001011234567")
    assert is_resident_number("9001011234568")
    assert not is_resident_number("9002301234568")


def test_foreigners_have_a_checksum_of_their_own() -> None:
    body = "900101512345"
    passing = [digit for digit in range(10) if is_resident_number(f"{body}{digit}")]
    assert len(passing) == 2


def test_luhn() -> None:
    assert passes_luhn("79927398713")
    assert not passes_luhn("79927398710")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (r'{"to": "\n010-1234-5678"}', r'{"to": "\n[PHONE]"}'),
        (r"print('\t900101-1234568')", r"print('\t[RRN]')"),
        (r'"{\"key\": \"\\nghp_abcdefghijklmnopqrstuvwxyz012345\"}"', r'"{\"key\": \"\\n[SECRET]\"}"'),
        (r'{"mail": "\njane.doe@example.com\u0000"}', r'{"mail": "\n[EMAIL]\u0000"}'),
        (r'{"mail": "\nsupport@example.com"}', r'{"mail": "\nsupport@example.com"}'),
        (r"order 7\naccount 110-123-456789", r"order 7\naccount [ACCOUNT]"),
    ],
)
def test_escapes_of_json_and_code_hide_nothing_and_stay(text: str, hidden: str) -> None:
    assert mask(text) == hidden


def test_any_number_of_backslashes_is_read_once() -> None:
    begun = time.process_time()
    assert mask("\\" * 256 * 1024 + "n010-1234-5678") == "\\" * 256 * 1024 + "n[PHONE]"
    assert time.process_time() - begun < 10  # squared it were minutes


@pytest.mark.parametrize("line", ["\n", "\\n", " "])
@pytest.mark.parametrize("has_end", [True, False])
def test_of_a_private_key_nothing_is_left(line: str, has_end: bool) -> None:
    body = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2] * 3 + (["kQ=="] if has_end else [])
    end = ["-----END RSA PRIVATE KEY-----"] if has_end else []
    key = line.join(["-----BEGIN RSA PRIVATE KEY-----", *body, *end])
    masked = mask(f"here it is: {key} that was all")
    assert masked == "here it is: [SECRET] that was all"


def test_masking_keeps_all_else() -> None:
    text = "홍길동(010-1234-5678, gildong@naver.com), 카드 4111-1111-1111-1111, 주문 AB-12345."
    assert mask(text) == "홍길동([PHONE], [EMAIL]), 카드 [CARD], 주문 AB-12345."
    assert find(mask(text)) == ()
