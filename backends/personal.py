"""Personal data: Korean resident numbers, phones, payment cards, e-mail, bank accounts, driving licences; and secrets such as API keys.

A number counts only where a checksum or its surroundings say what it is: order numbers and a company's hotline are no personal data.
Names and addresses are not looked for. Rules follow the public definitions: resident number (checksum modulo 11; numbers given since
October 2020 have none), ISO/IEC 7812 with Luhn (ISO/IEC 7812-1 annex B), the Korean numbering plan, RFC 5322's common form of addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

_WIDTHS = (
    {ord("０") + digit: ord("0") + digit for digit in range(10)}
    | dict.fromkeys(map(ord, "‐‑‒–—−－﹣"), ord("-"))
    | {ord("＠"): ord("@")}
)
_ESCAPE = re.compile(r"\\+(?:u[0-9A-Fa-f]{4}|[bfnrt\"'/])?")
"""Of JSON or code within a text, however often it was encoded: its last letter would stand before what begins there."""
_COULD_BE = re.compile(r"\d[\d .\-)]{6,}\d|@|sk-|AKIA|gh[pousr]_|xox|PRIVATE KEY|eyJ|AIza|hf_")


@dataclass(frozen=True, slots=True)
class Found:
    kind: str
    start: int
    end: int


_RRN = re.compile(r"(?<![\dA-Za-z\-])(\d{6})[ ]?-?[ ]?([0-9]\d{6})(?![\d\-])")
_MOBILE = re.compile(
    r"(?<![\dA-Za-z\-])(?<!\d\.)(?:\+?82[ .\-]?\(?0?\)?[ .\-]?|0)1[016789][ .\-)]{0,2}\d{3,4}[ .\-]?\d{4}(?![\d\-])"
)
_LANDLINE = re.compile(
    r"(?<![\dA-Za-z\-])(?<!\d\.)(?:\(0(?:2|[3-6][1-5]|70|50\d)\)[ ]?|"
    r"(?:\+82[ .\-]?|0)(?:2|[3-6][1-5]|70|50\d)[ .\-)])\d{3,4}[ .\-]\d{4}(?![\d\-])"
)
_US_PHONE = re.compile(
    r"(?<![\dA-Za-z\-])(?<!\d\.)(?:\+?1[ .\-])?(?:\(([2-9]\d{2})\)[ ]?|([2-9]\d{2})[.\- ])(\d{3})[.\- ](\d{4})(?![\d\-])"
)
_WORLD_PHONE = re.compile(r"(?<![\dA-Za-z])\+(?:[2-9]\d{0,2})(?:[ .\-]?\(?\d{1,5}\)?){2,5}(?![\d])")
_CARD = re.compile(
    r"(?<![\dA-Za-z\-])(?<!\d\.)(?:\d{4}([ \-])\d{4}\1\d{4}\1\d{4}|\d{4}([ \-])\d{6}\2\d{4,5}|\d{13,19})(?![\d\-])"
)
_EMAIL = re.compile(
    r"(?<![\w.+\-/])([A-Za-z0-9](?:[\w.+\-]{0,62}[A-Za-z0-9_])?)@((?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,18})(?![\w\-])",
    re.ASCII,
)
_ACCOUNT = re.compile(r"(?<![\dA-Za-z\-])\d{2,6}(?:[\- ]\d{2,8}){1,3}(?![\d\-])|(?<![\dA-Za-z\-])\d{10,16}(?![\d\-])")
_ACCOUNT_SHAPE = re.compile(
    r"\d{3}-\d{3}-\d{6}|\d{3}-\d{2}-\d{6}|\d{6}-\d{2}-\d{6}|\d{4}-\d{2}-\d{7}|\d{3}-\d{4}-\d{4}-\d{2}"
)
"""How the large Korean banks write theirs."""
_PLAIN_LANDLINE = re.compile(r"(?<![\dA-Za-z\-])0(?:2|[3-6][1-5]|70|50\d)\d{7,8}(?![\d\-])")
_PHONE_WORD = re.compile(r"전화|연락처|휴대폰|핸드폰|번호는|\btel\b|\bphone\b|\bcall\b|\bmobile\b", re.IGNORECASE)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_LICENCE = re.compile(r"(?<![\d\-])(?:1[1-9]|2[0-8])-\d{2}-\d{6}-\d{2}(?![\d\-])")
_SECRET = re.compile(
    r"(?<![A-Za-z0-9_\-])(?:sk-[A-Za-z0-9_\-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abpr]-[A-Za-z0-9\-]{20,}|AIza[\w\-]{35}|hf_[A-Za-z0-9]{30,}"
    r"|eyJ[\w\-]{10,}\.eyJ[\w\-]{10,}\.[\w\-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s*+[A-Za-z0-9+/=]{16,}+)*+(?:\s*+[A-Za-z0-9+/=]*+\s*+-----END [A-Z ]*PRIVATE KEY-----)?"
)
_ROLE_ADDRESSES = frozenset(
    [
        "support",
        "help",
        "info",
        "admin",
        "noreply",
        "no-reply",
        "no.reply",
        "donotreply",
        "do-not-reply",
        "cs",
        "contact",
        "service",
        "webmaster",
        "postmaster",
        "sales",
        "privacy",
        "abuse",
        "billing",
        "customer",
        "customercare",
        "customer.service",
        "customerservice",
        "helpdesk",
        "security",
        "press",
        "hr",
        "careers",
        "team",
        "hello",
        "git",
        "account",
        "accounts",
        "refund",
        "refunds",
        "returns",
        "orders",
        "order",
        "shipping",
        "feedback",
        "marketing",
        "partner",
        "partners",
        "office",
        "mail",
        "newsletter",
    ]
)
_FILE_ENDINGS = frozenset(
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json", "md", "txt", "html"]
)
_BANKS = (
    "계좌|입금|송금|이체|예금주|은행|뱅크|국민|신한|우리|하나|농협|기업|카카오|토스|새마을|우체국|수협|신협|씨티|제일|케이뱅크|환불받|"
    r"\bKB|\bNH|\bIBK|\bSC|\baccount\b|\bacct\b|\bbank\b|\brouting\b|\bdeposit\b|\btransfer\b"
)
_BANK_NEAR = re.compile(_BANKS, re.IGNORECASE)
_ACCOUNT_WORD = re.compile(
    r"계좌(?:번호)?|(?:bank\s+)?(?:account|acct)\s*(?:number|no\.?|#)?|은행|뱅크|\bbank\b", re.IGNORECASE
)
_NOT_BANK = re.compile(
    r"주문|송장|운송장|배송번호|예약|접수|티켓|상품|모델|시리얼|일련|사업자|고객번호|회원번호|order|tracking|ticket|invoice|serial|model|booking|reference|case\b|sku",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=\w\w\w)[.!?]\s|\n")
_NOT_CARD = re.compile(
    r"쿠폰|상품권|기프트|시리얼|일련|라이선스|제품 ?키|송장|주문|coupon|gift|voucher|serial|licen[cs]e|product key|tracking|order",
    re.IGNORECASE,
)
_TOLL_FREE = frozenset(["800", "833", "844", "855", "866", "877", "888"])


@lru_cache(maxsize=16)
def find(text: str) -> tuple[Found, ...]:
    """What is personal in a text, from left to right, without overlaps."""
    text = text.translate(_WIDTHS)
    if "\\" in text:
        text = _ESCAPE.sub(_blank, text)
    if not _COULD_BE.search(text):
        return ()
    taken: list[Found] = []
    for kind, pattern, is_one in _RULES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if all(end <= other.start or start >= other.end for other in taken) and is_one(match, text):
                taken.append(Found(kind, start, end))
    return tuple(sorted(taken, key=lambda found: found.start))


def _blank(escape: re.Match[str]) -> str:
    """As long, so that places stay the same; a line's end goes on ending a sentence."""
    text = escape.group()
    return " " * (len(text) - 1) + ("\n" if text[-1] == "n" else " ")


def mask(text: str) -> str:
    """The text with a tag in place of everything personal, such as `[PHONE]`."""
    return "".join(_masked(text))


def _masked(text: str) -> Iterator[str]:
    end = 0
    for found in find(text):
        yield text[end : found.start]
        yield f"[{found.kind.upper()}]"
        end = found.end
    yield text[end:]


def is_resident_number(digits: str, has_hyphen: bool = True, today: date | None = None) -> bool:
    """13 digits: a day that exists, a century, and the checksum; without a checksum only who was born since October 2020."""
    century = {
        "9": 1800,
        "0": 1800,
        "1": 1900,
        "2": 1900,
        "5": 1900,
        "6": 1900,
        "3": 2000,
        "4": 2000,
        "7": 2000,
        "8": 2000,
    }[digits[6]]
    try:
        born = date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return False
    if born > (today or date.today()):
        return False
    total = sum(
        int(digit) * weight for digit, weight in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False)
    )
    check = (11 - total % 11) % 10
    checks = {check, (check + 2) % 10} if digits[6] in "5678" else {check}
    return int(digits[12]) in checks or (has_hyphen and born >= date(2020, 10, 1))


def passes_luhn(digits: str) -> bool:
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_resident(match: re.Match[str], text: str) -> bool:
    return is_resident_number(match[1] + match[2], "-" in match.group())


def _is_card(match: re.Match[str], text: str) -> bool:
    digits = re.sub(r"\D", "", match.group())
    is_apart = len(digits) != len(match.group())
    if len(set(digits)) == 1 or not passes_luhn(digits) or not _is_issuer(digits, is_apart):
        return False
    return not _near(_NOT_CARD if is_apart else _NOT_BANK, text, match, 16, 0)


def _is_issuer(digits: str, is_apart: bool) -> bool:
    """Whether a network gives numbers that begin so and are as long; four groups of four are a card's whoever gave it."""
    head, size = int(digits[:4]), len(digits)
    if is_apart and size == 16:
        return digits[0] != "0"
    if digits[0] == "4":
        return size in (13, 16, 19)
    if 5100 <= head <= 5599 or 2221 <= head <= 2720 or 3528 <= head <= 3589 or digits[0] == "6":
        return size == 16 or (size == 19 and digits[0] == "6")
    if digits[:2] in ("34", "37"):
        return size == 15
    return digits[:2] in ("36", "38", "30") and size in (14, 16)


def _is_email(match: re.Match[str], text: str) -> bool:
    return match[1].lower() not in _ROLE_ADDRESSES and match[2].rpartition(".")[2].lower() not in _FILE_ENDINGS


def _is_called_phone(match: re.Match[str], text: str) -> bool:
    return _near(_PHONE_WORD, text, match, 16, 0) and not _near(_NOT_BANK, text, match, 10, 0)


def _is_us_phone(match: re.Match[str], text: str) -> bool:
    return (match[1] or match[2]) not in _TOLL_FREE and not _near(_NOT_BANK, text, match, 12, 0)


def _is_world_phone(match: re.Match[str], text: str) -> bool:
    return 9 <= len(re.sub(r"\D", "", match.group())) <= 15


def _is_account(match: re.Match[str], text: str) -> bool:
    number = match.group()
    digits = re.sub(r"\D", "", number)
    if not 9 <= len(digits) <= 16 or re.fullmatch(r"(?:19|20)\d{2}-\d{1,2}-\d{1,2}", number):
        return False
    if len(digits) == len(number):
        before = text[max(0, match.start() - 24) : match.start()]
        words = list(_ACCOUNT_WORD.finditer(before))
        return bool(words) and not _NOT_BANK.search(before[words[-1].start() :])
    if " " in number and "-" not in number and len(digits) < 10:
        return False
    is_usual = bool(_ACCOUNT_SHAPE.fullmatch(number)) and not _near(_NOT_BANK, text, match, 24, 0)
    return is_usual or (_near(_BANK_NEAR, text, match, 30, 14) and not _near(_NOT_BANK, text, match, 10, 0))


def _near(pattern: re.Pattern[str], text: str, match: re.Match[str], num_before: int, num_after: int) -> bool:
    """Whether a word stands within so many characters in the same sentence."""
    before = _SENTENCE_END.split(text[max(0, match.start() - num_before - 4) : match.start()])[-1][-num_before:]
    after = _SENTENCE_END.split(text[match.end() : match.end() + num_after])[0]
    return bool(pattern.search(before) or pattern.search(after))


def _is_iban(match: re.Match[str], text: str) -> bool:
    code = match.group().replace(" ", "")
    return 15 <= len(code) <= 34 and int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def _always(match: re.Match[str], text: str) -> bool:
    return True


_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str], str], bool]], ...] = (
    ("secret", _SECRET, _always),
    ("email", _EMAIL, _is_email),
    ("rrn", _RRN, _is_resident),
    ("phone", _MOBILE, _always),
    ("card", _CARD, _is_card),
    ("licence", _LICENCE, _always),
    ("phone", _LANDLINE, _always),
    ("phone", _PLAIN_LANDLINE, _is_called_phone),
    ("phone", _US_PHONE, _is_us_phone),
    ("phone", _WORLD_PHONE, _is_world_phone),
    ("account", _IBAN, _is_iban),
    ("account", _ACCOUNT, _is_account),
)
