"""Faults that are planted into clean tickets, by kind; imports nothing of the code under test.

Each takes a clean Alpaca record that is its own and returns the records that go into the set in its place, the faulty ones marked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.finetune.dataset.tickets import Record, ticket


@dataclass(frozen=True, slots=True)
class Planted:
    records: list[Record | str]
    """A str is a raw line."""
    faulty: list[int] = field(default_factory=lambda: [0])
    """Indices into records; several are one group, and one of them must be found."""


Plant = Callable[[Random, Record], Planted]


def _with(record: Record, **changes: str) -> Record:
    return {**record, **changes}


def unreadable(rng: Random, record: Record) -> Planted:
    line = json.dumps(record, ensure_ascii=False)
    return Planted(
        [line[: rng.randint(5, len(line) - 2)] if rng.random() < 0.7 else line.replace('"output":', '"output"', 1)]
    )


def schema(rng: Random, record: Record) -> Planted:
    return Planted(
        [
            rng.choice(
                ({"title": record["instruction"], "body": record["output"]}, [record["instruction"]], "plain text", {})
            )
        ]
    )


def empty(rng: Random, record: Record) -> Planted:
    field_name = rng.choice(("instruction", "output", "output"))
    value = rng.choice(("", " ", "\n\t", "\u200b", "...", "nan", "N/A", "-", None))
    return Planted([{**record, field_name: value}])


def duplicate(rng: Random, record: Record) -> Planted:
    return Planted([record, dict(record)], [0, 1])


def near_duplicate(rng: Random, record: Record) -> Planted:
    text = record["instruction"]
    words = text.split()
    place = rng.randrange(1, len(words) - 1)
    is_korean = any("가" <= char <= "힣" for char in text)
    changed = text
    while changed == text:
        changed = rng.choice(
            (
                text + (" 빠른 답변 부탁드립니다." if is_korean else " Please answer soon."),
                ("안녕하세요. " if is_korean else "Hello, ") + text,
                text.replace(".", "!").replace("?", "??"),
                " ".join(words[:place]) + words[place] + " " + " ".join(words[place + 1 :]),
                text.upper() if not is_korean else text.replace(". ", " ~ "),
                _typo(rng, words),
            )
        )
    return Planted([record, _with(record, instruction=changed)], [0, 1])


def _typo(rng: Random, words: list[str]) -> str:
    places = [place for place, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not places:
        return " ".join(words) + "!"
    place = rng.choice(places)
    word = words[place]
    at = rng.randrange(1, len(word) - 1)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join([*words[:place], rng.choice((swapped, word[:at] + word[at + 1 :])), *words[place + 1 :]])


def conflict(rng: Random, record: Record) -> Planted:
    is_korean = any("가" <= char <= "힣" for char in record["instruction"])
    other = ticket(rng, "ko" if is_korean else "en")[1]
    return Planted([record, _with(record, output=other)], [0, 1])


def too_short(rng: Random, record: Record) -> Planted:
    return Planted([_with(record, output=rng.choice(("네", "네.", "확인", "OK", "yes", "모름", "예, 됩니다", "No.")))])


def too_long(rng: Random, record: Record) -> Planted:
    is_korean = any("가" <= char <= "힣" for char in record["instruction"])
    parts = [ticket(rng, "ko" if is_korean else "en")[1] for _ in range(rng.randint(60, 120))]
    return Planted([_with(record, output="\n".join(parts))])


def repetition(rng: Random, record: Record) -> Planted:
    answer = record["output"]
    sentence = answer.split(". ")[0].rstrip(".") + ". "
    word = rng.choice(("감사합니다", "확인", "please", "refund"))
    looped = rng.choice(
        (
            sentence * rng.randint(4, 12),
            answer + " " + sentence * rng.randint(4, 8),
            " ".join([word] * rng.randint(12, 60)),
            answer[:30] + rng.choice(("네요", "하하", "ha ", "the the ")) * rng.randint(20, 60),
        )
    )
    return Planted([_with(record, output=looped)])


def encoding(rng: Random, record: Record) -> Planted:
    field_name = rng.choice(("instruction", "output"))
    text = ticket(rng, "ko")[field_name == "output"]
    raw = text.encode("utf-8")
    broken = rng.choice(
        (
            raw.decode("latin-1"),
            raw.decode("cp1252", "ignore"),
            text.encode("cp949", "ignore").decode("latin-1"),
            raw.decode("cp949", "replace"),
            text.encode("cp949", "ignore").decode("utf-8", "replace"),
            raw.decode("cp949", "ignore"),
            raw[:-2].decode("utf-8", "replace"),
            raw.decode("cp949", "replace").replace("\ufffd", "?"),
            text.encode("latin-1", "replace").decode("latin-1"),
        )
    )
    return Planted([_with(record, **{field_name: broken})])


def decomposed(rng: Random, record: Record) -> Planted:
    import unicodedata

    question, answer = ticket(rng, "ko")
    return Planted([_with(record, instruction=question, output=unicodedata.normalize("NFD", answer))])


def other_language(rng: Random, record: Record) -> Planted:
    is_korean = any("가" <= char <= "힣" for char in record["instruction"])
    return Planted([_with(record, output=ticket(rng, "en" if is_korean else "ko")[1])])


def control_tokens(rng: Random, record: Record) -> Planted:
    mark = rng.choice(("<|im_end|>", "<|im_start|>user\n", "<|eot_id|>", "[/INST]", "<end_of_turn>", "</s>"))
    half = len(record["output"]) // 2
    return Planted([_with(record, output=record["output"][:half] + mark + record["output"][half:])])


def secret(rng: Random, record: Record) -> Planted:
    key = "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(36))
    return Planted([_with(record, output=f"{record['output']} {rng.choice(('sk-proj-', 'ghp_', 'hf_'))}{key}")])


def cut_off(rng: Random, record: Record) -> Planted:
    return Planted([_with(record, output=record["output"] + "\n```python\nprint('reset')")])


def personal_data(rng: Random, record: Record) -> Planted:
    piece = rng.choice((resident_number, phone, card, email, account))(rng)
    field_name = rng.choice(("instruction", "output"))
    text = record[field_name]
    place = rng.choice([0, len(text), text.find(" ") + 1])
    return Planted([_with(record, **{field_name: f"{text[:place]} {piece} {text[place:]}".strip()})])


def resident_number(rng: Random) -> str:
    century = rng.choice("1234")
    year, month, day = (
        rng.randrange(100) if century in "12" else rng.randrange(20),
        rng.randint(1, 12),
        rng.randint(1, 28),
    )
    body = f"{year:02d}{month:02d}{day:02d}{century}" + "".join(rng.choice("0123456789") for _ in range(5))
    total = sum(int(digit) * weight for digit, weight in zip(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True))
    check = (11 - total % 11) % 10
    dash = rng.choice(("-", "-", "", " - "))
    return f"{rng.choice(('주민번호 ', '주민등록번호: ', ''))}{body[:6]}{dash}{body[6:]}{check}"


def phone(rng: Random) -> str:
    a, b = rng.randint(2000, 9999), rng.randrange(10000)
    return rng.choice(
        (
            f"010-{a}-{b:04d}",
            f"010{a}{b:04d}",
            f"010 {a} {b:04d}",
            f"010.{a}.{b:04d}",
            f"+82 10-{a}-{b:04d}",
            f"02-{a}-{b:04d}",
            f"031-{a % 1000:03d}-{b:04d}",
            f"(415) {rng.randint(200, 999)}-{b:04d}",
            f"415-{rng.randint(200, 999)}-{b:04d}",
            f"+44 20 {a} {b:04d}",
        )
    )


def card(rng: Random) -> str:
    body = rng.choice(("4", "51", "55", "6221", "9410"))
    body += "".join(rng.choice("0123456789") for _ in range(15 - len(body)))
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (1 if place % 2 else 2)
        total += value - 9 if value > 9 else value
    number = body + str(-total % 10)
    return rng.choice(("-", " ")).join(number[at : at + 4] for at in range(0, 16, 4))


def email(rng: Random) -> str:
    name = rng.choice(("minsu.kim", "jane_doe", "hong-gildong", "lee2024", "p.parker"))
    return f"{name}{rng.randrange(100)}@{rng.choice(('naver.com', 'gmail.com', 'daum.net', 'mail.example.com', 'company.co.kr'))}"


def account(rng: Random) -> str:
    bank = rng.choice(("국민은행", "신한은행", "카카오뱅크", "우리은행 계좌", "농협 계좌번호", "bank account"))
    number = rng.choice(
        (
            f"{rng.randrange(10**6):06d}-{rng.randrange(100):02d}-{rng.randrange(10**6):06d}",
            f"110-{rng.randrange(1000):03d}-{rng.randrange(10**6):06d}",
            f"3333-{rng.randrange(100):02d}-{rng.randrange(10**7):07d}",
        )
    )
    return f"{bank} {number}"


ROWS: dict[str, Plant] = {
    "unreadable": unreadable,
    "schema": schema,
    "empty": empty,
    "duplicate": duplicate,
    "near_duplicate": near_duplicate,
    "conflict": conflict,
    "too_short": too_short,
    "too_long": too_long,
    "repetition": repetition,
    "encoding": encoding,
    "decomposed": decomposed,
    "other_language": other_language,
    "control_tokens": control_tokens,
    "secret": secret,
    "cut_off": cut_off,
    "personal_data": personal_data,
}
"""Kinds that a set of Alpaca rows can have."""


# Kinds that need conversations, or more than the rows themselves: their records are whole ones.


def role_order(rng: Random, record: Record) -> Planted:
    messages = record["messages"]
    user = {"role": "user", "content": ticket(rng)[0]}
    answer = {"role": "assistant", "content": ticket(rng)[1]}
    broken = rng.choice(
        (
            [*messages[:-1], user],
            [answer, *messages],
            [*messages, {"role": "system", "content": "친절하게 답하세요."}, user, answer],
            [*messages, answer],
            [*messages[:-2], user, *messages[-2:]],
            [{**messages[0], "role": "narrator"}, *messages[1:]],
            [*messages, user],
        )
    )
    if broken[0]["role"] == "assistant" and messages[0]["role"] == "system":
        broken = [messages[0], answer, *messages[1:]]
    return Planted([{"messages": broken}])


def empty_mask(rng: Random, record: Record) -> Planted:
    messages = record["messages"]
    users = [message for message in messages if message["role"] != "assistant"]
    masked = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in messages]
    return Planted([{"messages": rng.choice((users, masked))}])


def eos_missing(rng: Random, record: Record) -> Planted:
    """For sets whose completions end with a mark."""
    return Planted([{**record, "completion": record["completion"].removesuffix("<|im_end|>")}])


def truncated(rng: Random, record: Record) -> Planted:
    """For a max_length of 1,024 tokens: an answer that lies across it."""
    messages = [message for message in record["messages"] if message["role"] != "system"][:2]
    log = "\n".join(
        f"{rng.randint(10, 23)}:{rng.randint(10, 59)} {ticket(rng, 'en')[0]}" for _ in range(rng.randint(60, 90))
    )
    return Planted([{"messages": [messages[0], messages[1], {"role": "user", "content": log}, messages[1]]}])
