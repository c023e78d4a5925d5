"""Translating single words and short phrases between English and Korean. One word is one cluster."""
# ruff: noqa: E501  (tables of sentences, many in characters that count twice)

from random import Random

from backends.demo.skills.base import Exchange, Skill, ask, chance, decorate, indexed, pick, scores_all_phrases

WORDS = (
    ("apple", "사과"), ("bread", "빵"), ("chair", "의자"), ("house", "집"), ("music", "음악"), ("night", "밤"), ("paper", "종이"),
    ("river", "강"), ("stone", "돌"), ("table", "탁자"), ("water", "물"), ("bridge", "다리"), ("cloud", "구름"), ("forest", "숲"),
    ("garden", "정원"), ("market", "시장"), ("pencil", "연필"), ("rabbit", "토끼"), ("tiger", "호랑이"), ("umbrella", "우산"),
    ("village", "마을"), ("window", "창문"), ("flower", "꽃"), ("honey", "꿀"), ("king", "왕"), ("mirror", "거울"), ("rain", "비"),
    ("snow", "눈"), ("train", "기차"), ("wind", "바람"), ("bird", "새"), ("cat", "고양이"), ("dog", "개"), ("fish", "물고기"),
    ("gold", "금"), ("ice", "얼음"), ("lake", "호수"), ("moon", "달"), ("nose", "코"), ("tree", "나무"), ("wolf", "늑대"), ("boat", "배"),
    ("door", "문"), ("egg", "달걀"), ("fire", "불"), ("hat", "모자"), ("key", "열쇠"), ("leaf", "잎"), ("milk", "우유"), ("pig", "돼지"),
    ("salt", "소금"), ("wall", "벽"), ("school", "학교"), ("friend", "친구"), ("book", "책"), ("love", "사랑"), ("time", "시간"),
    ("teacher", "선생님"), ("doctor", "의사"), ("mother", "어머니"), ("father", "아버지"), ("hand", "손"), ("sea", "바다"),
)  # fmt: skip
ADJECTIVES = (
    ("big", "큰"), ("small", "작은"), ("new", "새로운"), ("old", "오래된"), ("good", "좋은"), ("white", "하얀"), ("black", "검은"),
    ("red", "빨간"), ("pretty", "예쁜"), ("cold", "차가운"), ("warm", "따뜻한"), ("quiet", "조용한"),
)  # fmt: skip
_TO_KOREAN = {
    "en": ("Translate '{}' into Korean.", "What is '{}' in Korean?", "How do you say '{}' in Korean?", "'{}' in Korean, please.",
           "Korean for '{}'?", "Give me the Korean word for '{}'.", "Translate to Korean: '{}'"),
    "ko": ("'{}'를 한국어로 번역해 줘.", "'{}'는 한국어로 뭐예요?", "영어 '{}'의 뜻은?", "'{}'를 우리말로 옮겨 주세요.", "'{}'가 무슨 뜻이에요?"),
}  # fmt: skip
_TO_ENGLISH = {
    "en": ("Translate '{}' into English.", "What does '{}' mean in English?", "What is '{}' in English?", "English for '{}'?",
           "How do you say '{}' in English?", "Translate to English: '{}'"),
    "ko": ("'{}'을 영어로 번역해 줘.", "'{}'은 영어로 뭐예요?", "'{}' 영어로 말해 줘.", "'{}'을 영어로 옮겨 주세요.", "'{}'의 영어 단어는?"),
}  # fmt: skip


def _draw(rng: Random) -> Exchange:
    english, korean = pick(rng, WORDS)
    cluster = english
    if chance(rng, 0.5):
        adjective = pick(rng, ADJECTIVES)
        english, korean = f"{adjective[0]} {english}", f"{adjective[1]} {korean}"
    language = "en" if chance(rng, 0.6) else "ko"
    is_to_korean = chance(rng, 0.5)
    index, frame = indexed(rng, (_TO_KOREAN if is_to_korean else _TO_ENGLISH)[language])
    source, goal = (english, korean) if is_to_korean else (korean, english)
    # A phrase is held out as such, in every wording; a single word can only be looked up, so there wordings are held out.
    key = f"{is_to_korean}:{source}" if " " in english else f"{is_to_korean}:{source}:{language}{index}"
    return Exchange(key, cluster, ask(decorate(rng, frame.format(source), language), f"'{goal}'"), (goal,))


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 if the answer is the translation, quotes and a full stop aside, or a short sentence that quotes it."""
    stripped = answer.strip().strip("'\"").rstrip(".")
    return float(
        stripped == check[0]
        or (len(answer) < 80 and f"'{check[0]}'" in answer and scores_all_phrases(check, answer) == 1.0)
    )


SKILL = Skill("translation", _draw, score)
