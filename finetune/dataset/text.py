"""What texts are compared and judged by: their letters, numbers, negations, scripts, sentences."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_DROPPED = re.compile(r"[^\w+*/=%^<>]+|_+")
_MINUS = re.compile(r"(?<=\d)\s*[-−–]\s*(?=\d)|(?<![\w])[-−](?=\d)")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"\w+")
_NEGATION = re.compile(
    r"(?<!\w)(?:안|못)(?=\s)|않|없|불가|아니|말고|미(?:수령|배송|결제|납|지급)|\bnot\b|n['’]t\b|\bno\b|\bnever\b|\bwithout\b|\bcannot\b"
)
_POLITE = re.compile(
    r"안녕하(?:세요|십니까)|감사(?:합니다|드립니다|해요)|고맙습니다|(?:잘\s*)?부탁\s*(?:드립니다|드려요|드릴게요|해요)|수고하세요"
    r"|죄송(?:합니다|하지만|한데)|문의\s*(?:드립니다|드려요)|\b(?:hello|hi|hey|dear|please|thanks|thank you|regards|sorry)\b"
)
_HANGUL = re.compile("[\uac00-\ud7a3\u3131-\u318e\u1100-\u11ff]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
_FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_URL = re.compile(r"https?://\S+|www\.\S+|\S+@\S+\.\S+")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_RECENT = 16
"""Texts whose forms are kept: several checks ask for those of the same row."""
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


@lru_cache(maxsize=_RECENT)
def plain(text: str) -> str:
    """One way to write the same: compatibility forms folded, lower case, nothing invisible."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return text.casefold()


@lru_cache(maxsize=_RECENT)
def squash(text: str) -> str:
    """Letters, digits and the signs of arithmetic: two texts that differ in spaces and punctuation only have the same."""
    text = plain(text)
    if "-" in text or "−" in text:
        text = _MINUS.sub("<", text)
    return _DROPPED.sub("", text)


def gist(text: str) -> str:
    """A text in plain form without greetings and thanks."""
    return _POLITE.sub(" ", plain(text))


def words(text: str) -> list[str]:
    return _WORD.findall(text)


def numbers(text: str) -> tuple[str, ...]:
    """All numbers, sorted; thousands separators do not count."""
    return tuple(sorted(number.replace(",", "") for number in _NUMBER.findall(text)))


def num_negations(text: str) -> int:
    return len(_NEGATION.findall(text))


def prose(text: str) -> str:
    """Without code and addresses, which are in no language."""
    return (
        _URL.sub(" ", _FENCE.sub(" ", text)) if "`" in text or "@" in text or "://" in text or "www." in text else text
    )


def scripts(text: str) -> Counter[str]:
    """How many letters are Korean (`ko`), Latin (`en`), Chinese or Japanese (`cjk`)."""
    patterns = {"en": _LATIN} if text.isascii() else {"en": _LATIN, "ko": _HANGUL, "cjk": _CJK}
    return Counter({name: sum(map(len, pattern.findall(text))) for name, pattern in patterns.items()})


def language(text: str) -> str:
    """`ko`, `en`, `cjk`, `mixed`, or `` where there are too few letters to tell. A Korean syllable says as much as two Latin letters."""
    found = scripts(prose(text))
    weights = {"ko": 2.0 * found["ko"], "en": float(found["en"]), "cjk": 2.0 * found["cjk"]}
    total = sum(weights.values())
    if total < 16:
        return ""
    name, weight = max(weights.items(), key=lambda item: item[1])
    if weight >= 0.6 * total:
        return name
    return "mixed"


def sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def shown(text: str, limit: int = 160) -> str:
    """For reports: one line, cut, without what cannot be encoded."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
