"""Whether small talk is still answered as such: a greeting that is answered in the style of the task is the first thing users notice.

The style is told by the task's own answers: that they are JSON or lists, how they begin and end, the words that many of them have and
small talk has not, that they are far longer. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from finetune.evaluation.drift import is_json, is_list
from finetune.evaluation.items import Answer, Item
from finetune.evaluation.overlap import tokens

GREETINGS = (
    "Hello!", "Hi", "Good morning", "How are you?", "Thanks a lot!", "Bye, see you tomorrow.", "What is your name?", "Nice to meet you.",
    "I am a bit tired today.", "Tell me a joke.", "Have a nice weekend!", "Are you there?",
    "안녕하세요", "안녕!", "좋은 아침이에요", "잘 지내세요?", "고마워요!", "내일 봐요, 안녕.", "이름이 뭐예요?", "만나서 반가워요.",
    "오늘은 좀 피곤하네요.", "농담 하나 해 줘.", "주말 잘 보내세요!", "거기 있어요?",
)  # fmt: skip
MAX_TOKENS = 128
MOST = 0.5
"""A form that this share of the task's answers has is the task's."""
MANY = 0.3
"""An opening, an ending or a word is the task's from this share on."""
MIN_ROWS = 10
"""Fewer answers have no style."""
LONGER = 4.0
MAX_SHARE = 0.1
"""Of greetings that may look like the task's answers by chance."""
_EDGE_TOKENS = 2
_MIN_WORDS = 2
_MIN_LENGTH = 40
_ENGLISH = """
the and you your our for that this these those with have has had are was were will would can could not but from they them there here
what when where which who how all any more most some such than then very just also been being into about please
"""
_KOREAN = """
니다 습니 입니 합니 어요 아요 에요 예요 세요 해요 하세 하는 있습 있어 으로 에서 까지 부터 에게 하고 하면 그리 리고 주세 드립 립니
"""
_FUNCTION = frozenset(_ENGLISH.split() + _KOREAN.split())
"""Of any topic."""


@dataclass(frozen=True, slots=True)
class Style:
    """Of a task's answers, as far as most or many of them have it."""

    is_json: bool = False
    is_list: bool = False
    openings: frozenset[tuple[str, ...]] = frozenset()
    endings: frozenset[tuple[str, ...]] = frozenset()
    vocabulary: frozenset[str] = frozenset()
    """Words, and pairs of Korean syllables."""
    min_chars: float = float("inf")
    """What is at least as long is as long as its answers."""

    def why(self, text: str) -> str | None:
        """What of the style an answer has; None where it has none."""
        if self.is_json and is_json(text):
            return "it is JSON"
        if self.is_list and is_list(text):
            return "it is a list"
        found = tokens(text)
        if tuple(found[:_EDGE_TOKENS]) in self.openings:
            return f"it begins as the task's answers do: {' '.join(found[:_EDGE_TOKENS])!r}"
        if tuple(found[-_EDGE_TOKENS:]) in self.endings:
            return f"it ends as the task's answers do: {' '.join(found[-_EDGE_TOKENS:])!r}"
        shared = sorted(self.vocabulary & terms(text))
        if len(shared) >= _MIN_WORDS:
            return f"it has words of the task: {', '.join(shared[:4])}"
        if len(text) >= self.min_chars:
            return f"it is as long as the task's answers: {len(text)} characters"
        return None


@dataclass(frozen=True, slots=True)
class Styled:
    """A greeting that was answered in the style of the task."""

    question: str
    answer: str
    why: str


def items() -> list[Item]:
    return [
        Item(f"greetings/{place}", "greetings", "", ({"role": "user", "content": text},)) for place, text in enumerate(GREETINGS)
    ]  # fmt: skip


def style_of(wanted: Sequence[str], small_talk: Sequence[str]) -> Style:
    """The style of a task's expected answers, as against how greetings are answered by what is live.

    What small talk has too is not the task's: a support task's answers may all begin with `Hello`.
    """
    if len(wanted) < MIN_ROWS:
        return Style()
    usual = frozenset(term for text in small_talk for term in terms(text))
    usual_edges = [tokens(text) for text in small_talk]
    lengths = sorted(map(len, wanted))
    shortest = lengths[len(lengths) // 10]
    longest_usual = median(map(len, small_talk)) if small_talk else 0
    is_longer = shortest >= max(_MIN_LENGTH, LONGER * longest_usual)
    return Style(
        is_json=_share(map(is_json, wanted)) >= MOST > _share(map(is_json, small_talk)),
        is_list=_share(map(is_list, wanted)) >= MOST > _share(map(is_list, small_talk)),
        openings=frozenset(_edges(wanted, 0)) - {tuple(each[:_EDGE_TOKENS]) for each in usual_edges},
        endings=frozenset(_edges(wanted, -_EDGE_TOKENS)) - {tuple(each[-_EDGE_TOKENS:]) for each in usual_edges},
        vocabulary=frozenset(_frequent(wanted))
        - usual
        - _FUNCTION
        - frozenset(term for text in GREETINGS for term in terms(text)),
        min_chars=shortest if is_longer else float("inf"),
    )


def styled(style: Style, answers: Sequence[Answer]) -> list[Styled]:
    """`answers` to GREETINGS, in their order."""
    found = []
    for question, answer in zip(GREETINGS, answers, strict=True):
        why = style.why(answer.text)
        if why is not None:
            found.append(Styled(question, answer.text, why))
    return found


def terms(text: str) -> set[str]:
    """Words of letters, and pairs of neighbouring Korean syllables: one alone says nothing."""
    found = tokens(text)
    words = {token for token in found if len(token) > 2 and not token.isdigit()}
    pairs = {left + right for left, right in pairwise(found) if _is_syllable(left) and _is_syllable(right)}
    return words | pairs


def _is_syllable(token: str) -> bool:
    return len(token) == 1 and "\uac00" <= token <= "\ud7a3"


def _edges(texts: Sequence[str], start: int) -> Iterator[tuple[str, ...]]:
    """Those that many texts begin or end with."""
    found = [tokens(text) for text in texts]
    edges = Counter(
        tuple(each[start:] if start else each[:_EDGE_TOKENS]) for each in found if len(each) >= _EDGE_TOKENS
    )
    return (edge for edge, count in edges.items() if count >= MANY * len(texts))


def _frequent(texts: Sequence[str]) -> Iterator[str]:
    counts = Counter(term for text in texts for term in terms(text))
    return (term for term, count in counts.items() if count >= MANY * len(texts))


def _share(found: Iterator[bool]) -> float:
    values = list(found)
    return sum(values) / len(values) if values else 0.0
