"""Sums, differences and comparisons of numbers up to 99, the small times table, short word problems."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

import re
from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, pick
from backends.demo.skills.words import ENGLISH_NAMES, KOREAN_NAMES, particle

_PLAIN = {
    "en": ("What is {}?", "Calculate {}.", "{} = ?", "{}", "How much is {}?", "Can you work out {}?", "Compute {}.", "Solve {}.",
           "What's {}?", "Tell me the result of {}.", "I need {}.", "What does {} give?"),
    "ko": ("{}은 얼마예요?", "{}을 계산해 줘.", "{} = ?", "{}의 답은?", "{}의 결과를 알려 주세요.", "{}을 계산해 주세요.", "{}은 몇이야?", "{}"),
}  # fmt: skip
_SIGNS = {
    "+": ("{a} + {b}", "{a}+{b}", "{a} plus {b}"),
    "-": ("{a} - {b}", "{a}-{b}", "{a} minus {b}"),
    "*": ("{a} x {b}", "{a} * {b}", "{a} times {b}", "{a}*{b}", "{a} × {b}"),
}  # fmt: skip
_SIGNS_KO = {
    "+": ("{a} + {b}", "{a}+{b}", "{a} 더하기 {b}"),
    "-": ("{a} - {b}", "{a}-{b}", "{a} 빼기 {b}"),
    "*": ("{a} x {b}", "{a} 곱하기 {b}", "{a} * {b}", "{a} × {b}"),
}  # fmt: skip
_STORIES = {
    ("en", "+"): ("{n} has {a} apples and buys {b} more. How many apples does {n} have now?",
                  "There are {a} red balls and {b} blue balls. How many balls are there?",
                  "{n} read {a} pages today and {b} pages yesterday. How many pages is that?"),
    ("en", "-"): ("{n} has {a} apples and eats {b}. How many are left?", "There were {a} birds and {b} flew away. How many birds are left?",
                  "{n} had {a} coins and spent {b}. How many coins are left?"),
    ("ko", "+"): ("{k} 사과 {a}개를 가지고 있고 {b}개를 더 샀어요. 모두 몇 개예요?", "빨간 공 {a}개와 파란 공 {b}개가 있어요. 공은 모두 몇 개예요?"),
    ("ko", "-"): ("{k} 사과 {a}개 중에서 {b}개를 먹었어요. 몇 개가 남았어요?", "새 {a}마리 중에서 {b}마리가 날아갔어요. 몇 마리가 남았어요?"),
}  # fmt: skip
_COMPARE = {
    "en": ("Which is larger, {a} or {b}?", "Which number is bigger: {a} or {b}?", "What is the larger of {a} and {b}?"),
    "ko": ("{a}와 {b} 중에서 어느 것이 더 커요?", "{a}, {b} 중 더 큰 수는?", "더 큰 수를 골라 줘: {a}, {b}"),
}  # fmt: skip


def _draw(rng: Random) -> Exchange:
    language = "en" if chance(rng, 0.65) else "ko"
    roll = rng.random()
    if roll < 0.15:
        return _draw_comparison(rng, language)
    operator = "+" if roll < 0.5 else "-" if roll < 0.8 else "*"
    a, b = _operands(rng, operator)
    result = {"+": a + b, "-": a - b, "*": a * b}[operator]
    if operator != "*" and chance(rng, 0.25):
        story = pick(rng, _STORIES[language, operator])
        question = story.format(a=a, b=b, n=pick(rng, ENGLISH_NAMES), k=particle(pick(rng, KOREAN_NAMES), "이/가"))
        wording = "story"
    else:
        sign, frame = pick(rng, (_SIGNS if language == "en" else _SIGNS_KO)[operator]), pick(rng, _PLAIN[language])
        question = frame.format(sign.format(a=a, b=b))
        wording = f"{sign}:{frame}"  # by text: the languages share some
    low, high = (min(a, b), max(a, b)) if operator != "-" else (a, b)
    problem = f"{operator}:{low}:{high}"
    # A times table cannot be derived, only learnt: what is held out there are wordings. Sums and differences are held out as such.
    key = f"{problem}:{wording}" if operator == "*" else problem
    shown = "×" if operator == "*" else operator
    answer = f"{a} {shown} {b} = {result}"
    return Exchange(key, problem, ask(decorate(rng, question, language), answer), (str(result),))


def _operands(rng: Random, operator: str) -> tuple[int, int]:
    if operator == "*":
        return rng.randrange(13), rng.randrange(13)
    a, b = rng.randrange(100), rng.randrange(100)
    if chance(rng, 0.25):
        a, b = a % 20, b % 20
    return (max(a, b), min(a, b)) if operator == "-" else (a, b)


def _draw_comparison(rng: Random, language: str) -> Exchange:
    a = rng.randrange(100)
    b = (a + 1 + rng.randrange(99)) % 100
    question = pick(rng, _COMPARE[language]).format(a=a, b=b)
    answer = f"{max(a, b)} is larger." if language == "en" else f"{max(a, b)} 쪽이 더 커요."
    problem = f"max:{min(a, b)}:{max(a, b)}"
    return Exchange(problem, problem, ask(decorate(rng, question, language), answer), (str(max(a, b)),))


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the last whole number of a short answer is the expected one."""
    numbers = re.findall(r"-?\d+", answer)
    return float(len(answer) <= 80 and bool(numbers) and numbers[-1] == check[0])


SKILL = Skill("arithmetic", _draw, score, weight=1.6)
