"""Following a system prompt: a closing word, an opening word, capitals, the other language, a persona, one word only."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from dataclasses import dataclass
from random import Random

from backends.demo.skills.base import (
    Exchange,
    Message,
    Skill,
    ask,
    chance,
    decorate,
    indexed,
    is_held_out,
    mentions,
    pick,
)
from backends.demo.skills.facts import CAPITALS, FACTS, Fact, wording_key
from backends.demo.skills.words import COMMON_WORDS, ENGLISH_NAMES, particle

_RULES = {
    "end": ("Always end your answer with the word {w}.", "Finish every answer with {w}.", "The last word of each answer must be {w}.",
            "모든 답을 {w}로 끝내세요."),
    "begin": ("Begin every answer with the word {w}.", "Start each answer with {w}.", "The first word of each answer must be {w}.",
              "모든 답을 {w}로 시작하세요."),
    "upper": ("Answer in upper case.", "Write all answers in capital letters.", "Use only capital letters.", "ALWAYS ANSWER IN UPPER CASE.",
              "대문자로만 답하세요."),
    "korean": ("Answer in Korean.", "Always answer in Korean, whatever language the user writes.", "Reply only in Korean.",
               "항상 한국어로 답하세요.", "한국어로만 대답해 주세요."),
    "english": ("Answer in English.", "Always answer in English, whatever language the user writes.", "Reply only in English.",
                "항상 영어로 답하세요.", "영어로만 대답해 주세요."),
    "one word": ("Answer with one word only.", "Give only the answer, no sentence.", "Reply with a single word.", "Be as short as possible: one word.",
                 "한 단어로만 답하세요."),
    "persona": ("Your name is {n}. You work for {c}.", "You are {n}, the assistant of {c}.", "Act as {n} from {c}.",
                "당신의 이름은 {n}이고 {c}에서 일합니다."),
}  # fmt: skip
_NAME_QUESTIONS = ("Who are you?", "What is your name?", "Introduce yourself.", "Where do you work?", "Who am I talking to?", "Hello! Who are you?",
                   "Tell me about yourself.", "누구세요?", "이름이 뭐예요?", "자기소개를 해 주세요.")  # fmt: skip
_COMPANY_TAILS = ("Hotel", "Bank", "Airlines", "Books", "Clinic", "Motors", "School", "Bakery")
_KINDS = tuple(_RULES)
_NAME = "system_prompts"


def _draw(rng: Random) -> Exchange:
    kind = pick(rng, _KINDS)
    rule = pick(rng, _RULES[kind])
    if kind == "persona":
        return _draw_persona(rng, rule)
    word = pick(rng, COMMON_WORDS).upper()
    # A conversation under one rule: up to three questions, of which the last is the one that is scored. Those before it are of the
    # training side, as the wordings of all are for the facts themselves.
    turns: list[Message] = []
    for _ in range(rng.randrange(3)):
        before = _question(rng, kind, word)
        if not is_held_out(_NAME, before.key):
            turns += ask(before.text, before.answer)
    last = _question(rng, kind, word)
    turns += ask(last.text, last.answer)
    return Exchange(
        last.key, f"{kind}:{last.fact}", tuple(turns), (kind, last.phrase, word), system=rule.replace("{w}", word)
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """A question on a fact and its answer under a rule; `phrase` must be in that answer."""

    key: str
    fact: str
    text: str
    answer: str
    phrase: str


def _question(rng: Random, kind: str, word: str) -> _Question:
    fact = pick(rng, CAPITALS if kind in ("upper", "one word") else FACTS)
    language = _question_language(rng, kind)
    code = ("en", "ko")[language]
    index, text = indexed(rng, fact.questions[language])
    if is_held_out("facts", wording_key(fact, code, index)):
        return _question(rng, kind, word)
    phrase, answer = _apply(kind, word, fact, language)
    key = f"{kind}:{word}:{fact.name}" if kind in ("end", "begin") else f"{kind}:{wording_key(fact, code, index)}"
    return _Question(key, fact.name, decorate(rng, text, code), answer, phrase)


def _question_language(rng: Random, kind: str) -> int:
    forced = {"upper": 0, "korean": 0, "english": 1}
    return forced[kind] if kind in forced else int(chance(rng, 0.35))


def _apply(kind: str, word: str, fact: Fact, language: int) -> tuple[str, str]:
    """(the phrase that must be in the answer, the answer under the rule)"""
    if kind == "upper":
        return fact.phrases[0].upper(), fact.answers[0].upper()
    if kind == "korean":
        return fact.phrases[1], fact.answers[1]
    if kind == "english":
        return fact.phrases[0], fact.answers[0]
    phrase, answer = fact.phrases[language], fact.answers[language]
    if kind == "one word":
        return phrase, phrase
    return (phrase, f"{answer} {word}") if kind == "end" else (phrase, f"{word} {answer}")


def _draw_persona(rng: Random, rule: str) -> Exchange:
    name = pick(rng, ENGLISH_NAMES)
    company = f"{pick(rng, COMMON_WORDS).capitalize()} {pick(rng, _COMPANY_TAILS)}"
    question = pick(rng, _NAME_QUESTIONS)
    is_korean = not question.isascii()
    answer = f"저는 {company}의 {particle(name, '은/는')[:-1]}입니다." if is_korean else f"I am {name} from {company}."
    system = rule.replace("{n}", name).replace("{c}", company)
    key = f"persona:{name}:{company}"
    return Exchange(key, key, ask(question, answer), ("persona", name, company), system=system)


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the answer is right and obeys the rule."""
    kind, phrase, word = check
    answer = answer.strip()
    if not mentions(answer, phrase) or len(answer) > 200:
        return 0.0
    obeys = {
        "end": answer.endswith(word),
        "begin": answer.startswith(word),
        "upper": answer == answer.upper(),
        "korean": _is_korean(answer),
        "english": not _is_korean(answer),
        "one word": answer.rstrip(".") == phrase.rstrip("."),
        "persona": mentions(answer, word),
    }
    return float(obeys[kind])


def _is_korean(text: str) -> bool:
    return any("가" <= char <= "힣" for char in text)


SKILL = Skill(_NAME, _draw, score, weight=1.4)
