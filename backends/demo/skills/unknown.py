"""Saying that it does not know: invented countries, people and books, and requests far outside a small model's reach."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, mentions, pick
from backends.demo.skills.words import particle

_ONSETS = (
    "B",
    "Br",
    "D",
    "Dr",
    "F",
    "G",
    "Gr",
    "K",
    "L",
    "M",
    "N",
    "P",
    "Qu",
    "R",
    "S",
    "T",
    "Tr",
    "V",
    "W",
    "X",
    "Y",
    "Z",
)
_MIDDLES = ("ando", "elvi", "ombra", "ustre", "alta", "ermi", "olki", "inzo", "arga", "ovva", "esku", "umbi", "antra", "irko", "ellu",
            "orta", "azzi", "endo", "ulma", "ixo")  # fmt: skip
_ENDS = ("ria", "nia", "stan", "land", "dor", "mar", "via", "ron", "lia", "sk", "vane", "thia", "gar", "wick", "dell")
_KO_SYLLABLES = (
    "벨",
    "도",
    "란",
    "무",
    "카",
    "젤",
    "토",
    "리",
    "반",
    "쿠",
    "페",
    "론",
    "사",
    "브",
    "나",
    "크",
    "올",
    "디",
    "몬",
    "테",
)
_ABOUT = {
    "en": ("What is the capital of {}?", "Which language is spoken in {}?", "Where is {} located?", "Who is the king of {}?",
           "Who is {}?", "What is {}?", "Tell me about {}.", "Who wrote the book {}?", "When was {} founded?", "How many people live in {}?",
           "What is the chemical symbol of {}?", "How many legs does {} have?", "Who invented {}?", "What does {} mean?",
           "When was {} born?", "Explain {}.", "Which continent is {} on?", "What is the currency of {}?", "Is {} famous?"),
    "ko": ("{}의 수도는 어디인가요?", "{}의 언어는 무엇인가요?", "{}은 어디에 있나요?", "{}의 왕은 누구예요?", "{}은 누구예요?", "{}에 대해 알려 주세요.",
           "{}이 뭐예요?", "{}은 언제 만들어졌어요?", "{}에는 몇 명이 살아요?", "{}의 원소 기호는?", "{}을 설명해 줘.", "{}의 뜻이 뭐야?", "{}의 수도는?"),
}  # fmt: skip
_BEYOND = {
    "en": (("Who won {}?", "What will happen in {}?", "Predict {}.", "Write a poem about {}.", "Write an essay about {}.",
            "Give me a recipe for {}.", "What is the price of {}?", "What is the latest news on {}?", "What do you think about {}?",
            "Recommend a book about {}.", "How do I repair {}?", "Summarize the history of {}.", "What is the best {}?"),
           ("the game yesterday", "the election", "the lottery", "my garden", "the stock market", "tomato soup", "bitcoin", "my car",
            "the ocean", "quantum physics", "the Roman empire", "chocolate cake", "a new laptop", "my neighbor", "the next season",
            "modern art", "deep sea fish", "a wooden boat", "the tax law", "old coins")),
    "ko": (("{}에 대한 시를 써 줘.", "{}의 가격은 얼마예요?", "{}의 최신 뉴스는?", "{}을 어떻게 고쳐요?", "{}의 역사를 요약해 줘.", "{}을 추천해 줘.",
            "{}을 예측해 줘.", "{}에 대한 글을 써 주세요.", "{}의 요리법을 알려 줘."),
           ("어제 경기", "선거", "복권", "주식 시장", "토마토 수프", "비트코인", "자동차", "양자 물리학", "로마 제국", "초콜릿 케이크", "새 노트북", "현대 미술", "세법",
            "낡은 동전", "제 정원", "나무 배")),
}  # fmt: skip
_DIRECT = {"en": "I don't know. I have no information about {}.", "ko": "모르겠어요. {}에 대한 정보가 없어요."}
_BEYOND_ANSWER = {
    "en": "I don't know. That is beyond a small model like me.",
    "ko": "모르겠어요. 저 같은 작은 모델에게는 어려운 일이에요.",
}


def invented_name(rng: Random, language: str) -> str:
    """A name that means nothing, such as Brandoria; two words now and then."""
    if language == "ko":
        return "".join(pick(rng, _KO_SYLLABLES) for _ in range(3 + rng.randrange(2)))
    word = pick(rng, _ONSETS) + pick(rng, _MIDDLES) + pick(rng, _ENDS)
    return f"{pick(rng, _ONSETS)}{pick(rng, _MIDDLES)} {word}" if chance(rng, 0.2) else word


def fill(wording: str, name: str) -> str:
    """`wording` with `name` and, in Korean, the particle forms that it needs."""
    for marked, pair in (("{}은", "은/는"), ("{}이 ", "이/가"), ("{}을", "을/를")):
        if marked in wording:
            return wording.replace(marked, particle(name, pair) + (" " if marked.endswith(" ") else ""))
    return wording.replace("{}", name)


def _draw(rng: Random) -> Exchange:
    language = "en" if chance(rng, 0.6) else "ko"
    if chance(rng, 0.3):
        frames, topics = _BEYOND[language]
        frame, topic = pick(rng, frames), pick(rng, topics)
        question, key = fill(frame, topic), f"beyond:{frame}:{topic}"
        answer = _BEYOND_ANSWER[language]
        return Exchange(key, f"beyond:{topic}", ask(decorate(rng, question, language), answer), (language,))
    name = invented_name(rng, language)
    question = fill(pick(rng, _ABOUT[language]), name)
    answer = _DIRECT[language].format(name)
    return Exchange(f"name:{name}", f"name:{name}", ask(decorate(rng, question, language), answer), (language,))


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the answer begins by saying that it does not know, in the language of the question."""
    opening = answer.strip()[:40]
    if check[0] == "en":
        return float(mentions(opening, "don't know") or mentions(opening, "do not know"))
    return float(opening.startswith(("모르겠어요", "모릅니다", "잘 모르겠")))


SKILL = Skill("unknown", _draw, score, weight=1.2)
