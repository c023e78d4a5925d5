"""Remembering what the user said earlier in the conversation."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills import smalltalk
from backends.demo.skills.base import (
    Exchange,
    Message,
    Skill,
    assistant,
    chance,
    indexed,
    is_held_out,
    pick,
    scores_all_phrases,
    user,
)
from backends.demo.skills.unknown import invented_name
from backends.demo.skills.words import CITIES, COLORS, COMMON_WORDS, ENGLISH_NAMES, JOBS, KOREAN_NAMES, particle

# kind: (statements, reply, questions, answer), {v} is the value; Korean values may need a particle: {v은} {v이} {v을}
_KINDS_EN = {
    "name": (("My name is {v}.", "I am {v}.", "Call me {v}.", "Hello, I'm {v}.", "You can call me {v}."), "Nice to meet you, {v}!",
             ("What is my name?", "Do you remember my name?", "Who am I?", "What am I called?", "Tell me my name."), "Your name is {v}."),
    "city": (("I live in {v}.", "I am from {v}.", "My home is {v}.", "I moved to {v}."), "{v} is a nice place.",
             ("Where do I live?", "What is my city?", "Which city did I mention?", "Do you remember where I live?"), "You live in {v}."),
    "color": (("My favorite color is {v}.", "I like the color {v}.", "I love {v}."), "{v} is a nice color.",
              ("What is my favorite color?", "Which color do I like?", "Do you remember my color?"), "Your favorite color is {v}."),
    "job": (("I work as a {v}.", "My job is {v}.", "I am a {v} by profession."), "That is an interesting job.",
            ("What is my job?", "What do I do for a living?", "Do you remember my job?"), "You work as a {v}."),
    "code": (("The secret word is {v}.", "Remember the word {v}.", "Please keep this word in mind: {v}", "Remember this: {v}"), "I will remember it.",
             ("What was the word?", "What is the secret word?", "Which word did I tell you?", "Repeat the word, please."), "The word is {v}."),
    "number": (("My lucky number is {v}.", "Remember the number {v}.", "My room has the number {v}."), "I will remember it.",
               ("What was the number?", "Which number did I tell you?", "Do you remember the number?"), "The number is {v}."),
}  # fmt: skip
_KINDS_KO = {
    "name": (("제 이름은 {v}입니다.", "저는 {v}예요.", "{v}라고 불러 주세요.", "안녕하세요, {v}입니다."), "반가워요, {v} 씨!",
             ("제 이름이 뭐예요?", "제 이름을 기억해요?", "저는 누구예요?", "내 이름이 뭐라고 했지?"), "이름은 {v}입니다."),
    "city": (("저는 {v}에 살아요.", "저는 {v}에서 왔어요.", "제 집은 {v}에 있어요."), "좋은 곳이네요.",
             ("제가 어디에 살아요?", "제가 사는 도시는 어디예요?", "어디 산다고 했죠?"), "{v}에 살아요."),
    "color": (("제가 좋아하는 색은 {v}이에요.", "저는 {v}을 좋아해요."), "예쁜 색이네요.",
              ("제가 좋아하는 색은 뭐예요?", "무슨 색을 좋아한다고 했죠?"), "좋아하는 색은 {v}입니다."),
    "number": (("제 행운의 숫자는 {v}예요.", "숫자 {v}을 기억해 줘.", "제 방 번호는 {v}예요."), "기억할게요.",
               ("숫자가 뭐였죠?", "제가 말한 숫자는?", "숫자를 기억해요?"), "숫자는 {v}입니다."),
}  # fmt: skip


def _value(rng: Random, kind: str, language: str) -> str:
    is_korean = language == "ko"
    if kind == "name":
        if chance(rng, 0.3):
            return invented_name(rng, language)
        return pick(rng, KOREAN_NAMES if is_korean else ENGLISH_NAMES)
    if kind == "number":
        return str(1 + rng.randrange(999))
    if kind == "code":
        return pick(rng, COMMON_WORDS)
    return pick(rng, {"city": CITIES, "color": COLORS, "job": JOBS}[kind])[is_korean]


def _draw(rng: Random) -> Exchange:
    language = "en" if chance(rng, 0.65) else "ko"
    table = _KINDS_EN if language == "en" else _KINDS_KO
    kinds = rng.sample(tuple(table), 1 + rng.randrange(2))
    turns: list[Message] = []
    values = {}
    for kind in kinds:
        values[kind] = _value(rng, kind, language)
        statements, reply, _, _ = table[kind]
        turns += [user(_fill(pick(rng, statements), values[kind])), assistant(_fill(reply, values[kind]))]
    if chance(rng, 0.4):
        turns += _small_talk(rng, language)
    asked = pick(rng, kinds)
    index, question = indexed(rng, table[asked][2])
    answer = _fill(table[asked][3], values[asked])
    key = f"{language}:{asked}:{values[asked]}:{index}"
    return Exchange(
        key, f"{language}:{asked}:{values[asked]}", (*turns, user(question), assistant(answer)), (values[asked],)
    )


def _small_talk(rng: Random, language: str) -> tuple[Message, ...]:
    """An exchange in between, of the training side."""
    exchange = smalltalk.SKILL.draw(rng)
    if (
        is_held_out("smalltalk", exchange.key)
        or not exchange.cluster.endswith(language)
        or exchange.cluster.startswith("who")
    ):
        return _small_talk(rng, language)
    return exchange.turns


def _fill(text: str, value: str) -> str:
    if text.startswith("{v}예요") or "{v}예요" in text:
        text = text.replace(
            "{v}예요", "{v}이에요" if particle(value, "이/가").endswith("이") and not value[-1].isdigit() else "{v}예요"
        )
    text = text.replace("a {v}", "an {v}") if value == "engineer" else text
    filled = text.replace("{v}", value)
    return filled[0].upper() + filled[1:]


SKILL = Skill("recall", _draw, scores_all_phrases)
