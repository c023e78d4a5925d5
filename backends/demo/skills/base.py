"""What a skill is: a generator of exchanges, a rule that splits them, a scorer. Pure standard library, the same in every process.

Nothing here depends on `hash()`, set order or the clock; all randomness comes from the `random.Random` that is passed in.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

Message = Mapping[str, Any]
Tool = Mapping[str, Any]
T = TypeVar("T")

HELD_OUT_ONE_IN = 5


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer, possibly over several turns.

    key      what must not be shared between training and evaluation (operands, a wording of a fact ...)
    cluster  the independent unit that it belongs to: one fact, one rule, or the key itself where every key is a problem of its own
    turns    messages after the system prompt; the last one is the assistant's answer that is learnt and scored
    check    what the skill's scorer holds an answer against
    """

    key: str
    cluster: str
    turns: tuple[Message, ...]
    check: tuple[str, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Skill:
    """A named ability. `draw` makes exchanges of both splits; `score(check, answer)` is 1.0 or 0.0; `weight` its share in training."""

    name: str
    draw: Callable[[Random], Exchange]
    score: Callable[[tuple[str, ...], str], float]
    weight: float = 1.0


def is_held_out(skill: str, key: str) -> bool:
    """Whether a key belongs to the held-out split: one in HELD_OUT_ONE_IN by a stable digest."""
    digest = hashlib.blake2b(f"{skill}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


def pick(rng: Random, options: Sequence[T]) -> T:
    """A uniform choice; one call to `random()`, the cheapest that the generator has."""
    return options[int(rng.random() * len(options))]


def indexed(rng: Random, options: Sequence[T]) -> tuple[int, T]:
    """A uniform choice with its index, which goes into keys."""
    index = int(rng.random() * len(options))
    return index, options[index]


def chance(rng: Random, probability: float) -> bool:
    return rng.random() < probability


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def ask(question: str, answer: str) -> tuple[Message, Message]:
    return user(question), assistant(answer)


_BEFORE = {
    "en": ("Hi! ", "Hello. ", "Hey, ", "Please help me. ", "One question: ", "Quick question: ", "OK. ", "Next: ", "Question: ", "So, "),
    "ko": ("안녕하세요. ", "안녕! ", "질문이 있어요. ", "궁금한 게 있어요. ", "그럼 ", "저기요, ", "질문: ", "하나만 물어볼게요. "),
}  # fmt: skip
_AFTER = {
    "en": (" Thanks!", " Thank you.", " please", " Please.", " I need to know.", " Tell me.", " Thanks in advance."),
    "ko": (" 감사합니다.", " 부탁해요.", " 고마워요.", " 알려 주세요.", " 궁금해요."),
}  # fmt: skip


def decorate(rng: Random, text: str, language: str) -> str:
    """Dress a wording as people do: a greeting before, thanks after, no capital, no question mark. Never changes what is asked."""
    roll = rng.random()
    if roll < 0.45:
        return text
    if roll < 0.60:
        text = text[0].lower() + text[1:]
    if roll < 0.72:
        text = text.rstrip("?. ")
    if 0.66 < roll < 0.86:
        text = pick(rng, _BEFORE[language]) + text
    if roll > 0.80:
        text = (text if text[-1] in "?.!'" else text + ".") + pick(rng, _AFTER[language])
    return text


def mentions(answer: str, phrase: str) -> bool:
    """Whether `phrase` stands in `answer`, not as part of a longer word of Latin letters or digits; case counts."""
    start = answer.find(phrase) if phrase else -1
    while start != -1:
        end = start + len(phrase)
        before, after = answer[start - 1 : start], answer[end : end + 1]
        if not _joins(before, phrase[0]) and not _joins(phrase[-1], after):
            return True
        start = answer.find(phrase, start + 1)
    return False


def _joins(left: str, right: str) -> bool:
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def scores_all_phrases(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the answer is prose of sensible length that holds every phrase of `check`.

    A phrase may list alternatives with `|`; one that begins with `!` must be absent.
    """
    if len(answer) > 600 or answer.lstrip().startswith(("{", "[", "<tool_call>")):
        return 0.0
    return float(all(_holds(answer, phrase) for phrase in check))


def _holds(answer: str, phrase: str) -> bool:
    if phrase.startswith("!"):
        return not mentions(answer, phrase[1:])
    return any(mentions(answer, option) for option in phrase.split("|"))
