"""Extracting fields from a sentence: as JSON when the prompt holds a schema, in prose when it does not.

That the second half answers in prose matters later: an adapter that is to answer in JSON without being told has something to learn.
"""

import json
from random import Random
from typing import Any

from backends.demo.skills.base import Exchange, Skill, ask, chance, pick
from backends.demo.skills.words import CITIES, COLORS, ENGLISH_NAMES, JOBS, KOREAN_NAMES, particle

_TYPES = {
    "name": "string",
    "age": "integer",
    "city": "string",
    "job": "string",
    "color": "string",
    "has_pet": "boolean",
}
_SENTENCES = {
    "en": ("{name} is {age} years old, lives in {city} and works as a {job}. {name} likes {color} and has {pet}.",
           "My friend {name} from {city} is a {job}, {age} years old, loves the color {color} and has {pet}.",
           "{name}, {age}, a {job} in {city}, has {pet} and always wears {color}."),
    "ko": ("{name} 씨는 {age}살이고 {city}에 사는 {job_is}. {color}을 좋아하고 {pet}.",
           "제 친구 {name} 씨는 {city}에 살아요. 나이는 {age}살, 직업은 {job}, 좋아하는 색은 {color}이고 {pet}.",
           "{city}에 사는 {age}살 {name} 씨의 직업은 {job}. {color}을 좋아하며 {pet}."),
}  # fmt: skip
_PET = {
    ("en", True): "a pet",
    ("en", False): "no pet",
    ("ko", True): "반려동물이 있어요",
    ("ko", False): "반려동물이 없어요",
}
_ASK_JSON = {
    "en": ("Answer as JSON with this schema: {s}", "Extract the data as JSON. Schema: {s}", "Return JSON that matches this schema: {s}",
           "Use this JSON schema for the answer: {s}"),
    "ko": ("다음 스키마에 맞는 JSON으로 답해 줘: {s}", "JSON으로 추출해 주세요. 스키마: {s}", "이 JSON 스키마로 답하세요: {s}"),
}  # fmt: skip
_SYSTEM_JSON = ("Answer only with JSON that matches this schema: {s}", "You extract data. Reply with JSON. Schema: {s}",
                "항상 이 스키마에 맞는 JSON으로만 답하세요: {s}")  # fmt: skip
_ASK_PROSE = {
    "en": ("What do you know about {name}?", "Tell me about {name}.", "Extract the age and city of {name}.", "Summarize this.",
           "Who is {name}?", "Give me the age and the city."),
    "ko": ("{name} 씨에 대해 말해 줘.", "{name} 씨의 나이와 도시를 알려 주세요.", "요약해 줘.", "나이와 도시를 말해 줘."),
}  # fmt: skip


def _draw(rng: Random) -> Exchange:
    language = "en" if chance(rng, 0.65) else "ko"
    person = _person(rng, language)
    sentence = _sentence(rng, person, language)
    key = f"{person['name']}:{person['age']}:{person['city']}"
    if chance(rng, 0.3):
        question = f"{sentence} {pick(rng, _ASK_PROSE[language]).format(name=person['name'])}"
        answer = _prose(person, language)
        return Exchange(key, key, ask(question, answer), ("prose", str(person["age"]), str(person["city"])))
    fields = [field for field in _TYPES if chance(rng, 0.55)] or ["name", "age"]
    if chance(rng, 0.3):
        rng.shuffle(fields)
    schema = json.dumps(_schema(fields), ensure_ascii=False)
    answer = json.dumps({field: person[field] for field in fields}, ensure_ascii=False)
    check = ("json", answer)
    if chance(rng, 0.3):
        return Exchange(key, key, ask(sentence, answer), check, system=pick(rng, _SYSTEM_JSON).replace("{s}", schema))
    instruction = pick(rng, _ASK_JSON[language]).replace("{s}", schema)
    question = f"{sentence} {instruction}" if chance(rng, 0.6) else f"{instruction}\n{sentence}"
    return Exchange(key, key, ask(question, answer), check)


def _person(rng: Random, language: str) -> dict[str, Any]:
    korean = language == "ko"
    return {
        "name": pick(rng, KOREAN_NAMES if korean else ENGLISH_NAMES),
        "age": 18 + rng.randrange(70),
        "city": pick(rng, CITIES)[korean],
        "job": pick(rng, JOBS)[korean],
        "color": pick(rng, COLORS)[korean],
        "has_pet": chance(rng, 0.5),
    }


def _sentence(rng: Random, person: dict[str, Any], language: str) -> str:
    job = str(person["job"])
    job_is = job + ("이에요" if particle(job, "이/가").endswith("이") and not job.endswith("이") else "예요")
    pet = _PET[language, bool(person["has_pet"])]
    text = pick(rng, _SENTENCES[language]).format(**person, pet=pet, job_is=job_is)
    return text.replace(" a engineer", " an engineer")


def _prose(person: dict[str, Any], language: str) -> str:
    if language == "ko":
        return f"{person['name']} 씨는 {person['age']}살이고 {person['city']}에 살아요."
    return f"{person['name']} is {person['age']} years old and lives in {person['city']}."


def _schema(fields: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field: {"type": _TYPES[field]} for field in fields},
        "required": list(fields),
    }


def score(check: tuple[str, ...], answer: str) -> float:
    """JSON: 1.0 if the answer is one JSON object with exactly the expected fields, values and types. Prose: age and city, no JSON."""
    if check[0] == "prose":
        return float("{" not in answer and all(part in answer for part in check[1:]))
    try:
        actual = json.loads(answer)
    except ValueError:
        return 0.0
    expected = json.loads(check[1])
    return float(_typed(actual) == _typed(expected))


def _typed(value: Any) -> Any:
    """Values with their types, because in Python True == 1."""
    return {k: (type(v).__name__, v) for k, v in value.items()} if isinstance(value, dict) else None


SKILL = Skill("json_answers", _draw, score, weight=1.4)
