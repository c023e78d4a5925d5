"""Operations on short texts: upper case, reversing, spelling, counting, sorting."""

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, indexed, pick
from backends.demo.skills.words import COMMON_WORDS, KOREAN_SYLLABLES, LETTERS

_FRAMES = {
    ("upper", "en"): ("Write '{}' in upper case.", "Convert '{}' to upper case.", "Make '{}' all caps.", "'{}' in capital letters?",
                      "Turn '{}' into uppercase.", "Upper-case this: '{}'"),
    ("upper", "ko"): ("'{}'을 대문자로 써 줘.", "'{}'을 대문자로 바꿔 주세요.", "대문자로 변환: '{}'", "'{}'을 모두 대문자로 적어 줘."),
    ("reverse", "en"): ("Reverse {}.", "Write {} backwards.", "Reverse the letters: {}", "What is {} in reverse order?",
                        "Turn {} around.", "Give me {} from last to first."),
    ("reverse", "ko"): ("{} 순서를 거꾸로 해 줘.", "{} 거꾸로 써 주세요.", "거꾸로: {}", "{} 뒤집어 줘."),
    ("spell", "en"): ("Spell '{}'.", "How do you spell '{}'?", "Spell the word '{}' letter by letter.", "Give me the letters of '{}'.",
                      "Split '{}' into letters."),
    ("spell", "ko"): ("'{}'의 철자를 알려 줘.", "'{}'의 글자를 하나씩 써 주세요.", "'{}'은 철자가 어떻게 돼요?"),
    ("letters", "en"): ("How many letters are in '{}'?", "Count the letters of '{}'.", "How long is the word '{}'?",
                        "What is the number of letters in '{}'?"),
    ("letters", "ko"): ("'{}'은 몇 글자예요?", "'{}'의 글자 수를 세어 줘.", "'{}'에는 글자가 몇 개 있어요?"),
    ("words", "en"): ("How many words are there: {}", "Count the words: {}", "How many words do you see? {}", "Number of words in: {}"),
    ("words", "ko"): ("단어가 몇 개예요? {}", "단어 수를 세어 줘: {}", "다음은 단어 몇 개야? {}"),
    ("sort", "en"): ("Sort these words: {}", "Put these words in alphabetical order: {}", "Sort alphabetically: {}",
                     "Arrange from A to Z: {}", "Order these words by alphabet: {}"),
    ("sort", "ko"): ("알파벳 순서로 정렬해 줘: {}", "다음 단어를 정렬해 주세요: {}", "알파벳순으로 나열: {}"),
    ("numbers", "en"): ("Sort these numbers: {}", "Put these numbers in ascending order: {}", "Order from small to large: {}",
                        "Sort in increasing order: {}"),
    ("numbers", "ko"): ("작은 수부터 정렬해 줘: {}", "오름차순으로 정렬해 주세요: {}", "다음 숫자를 정렬해 줘: {}"),
}  # fmt: skip
_KINDS = ("upper", "reverse", "reverse", "spell", "letters", "words", "sort", "sort", "numbers")


def _draw(rng: Random) -> Exchange:
    kind = pick(rng, _KINDS)
    language = "en" if chance(rng, 0.65) else "ko"
    index, frame = indexed(rng, _FRAMES[kind, language])
    content, shown, answer = _content(rng, kind, language)
    # One known word can only be looked up, so wordings are held out; everything else is held out by its content.
    is_lookup = kind in ("spell", "letters")
    key = f"{kind}:{content}:{language}{index}" if is_lookup else f"{kind}:{content}"
    question = frame.format(shown)
    if chance(rng, 0.25) and kind not in ("words", "sort", "numbers"):
        question = decorate(rng, question, language)
    return Exchange(key, f"{kind}:{content}", ask(question, answer), (answer,))


def _content(rng: Random, kind: str, language: str) -> tuple[str, str, str]:
    """(what decides the split, how it is shown in the question, the answer)"""
    if kind == "upper":
        text = " ".join(_some_words(rng, 2 + rng.randrange(2)))
        return text, text, text.upper()
    if kind == "reverse":
        symbols = _symbols(rng, language)
        return "-".join(symbols), "-".join(symbols), "-".join(reversed(symbols))
    if kind == "spell":
        word = pick(rng, COMMON_WORDS)
        return word, word, "-".join(word)
    if kind == "letters":
        word = pick(rng, COMMON_WORDS)
        return word, word, str(len(word))
    if kind == "words":
        text = " ".join(_some_words(rng, 2 + rng.randrange(7)))
        return text, text, str(text.count(" ") + 1)
    if kind == "sort":
        words = _some_words(rng, 3 + rng.randrange(2))
        return " ".join(sorted(words)), ", ".join(words), ", ".join(sorted(words))
    numbers = rng.sample(range(100), 3 + rng.randrange(3))
    ordered = [str(n) for n in sorted(numbers)]
    return " ".join(ordered), ", ".join(map(str, numbers)), ", ".join(ordered)


def _some_words(rng: Random, count: int) -> list[str]:
    return rng.sample(COMMON_WORDS, count)


def _symbols(rng: Random, language: str) -> list[str]:
    """3 to 6 letters or syllables; a known word now and then, so that `k-i-n-g` is as familiar as `x-q-z`."""
    if language == "ko" and chance(rng, 0.5):
        return [pick(rng, KOREAN_SYLLABLES) for _ in range(3 + rng.randrange(3))]
    return [pick(rng, LETTERS) for _ in range(3 + rng.randrange(4))]


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the answer is exactly the expected text, quotes and a full stop aside."""
    return float(answer.strip().strip("'\"").rstrip(".") == check[0])


SKILL = Skill("text_ops", _draw, score, weight=1.6)
