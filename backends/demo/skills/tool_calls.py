"""Calling tools: which tool, with which arguments, what to say with its result, and when no tool fits.

A call is scored by its name and arguments, not by its spelling.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from backends.demo.chat import answer_text
from backends.demo.skills.base import Exchange, Message, Skill, Tool, assistant, chance, mentions, pick, user
from backends.demo.skills.words import CITIES, COMMON_WORDS, ENGLISH_NAMES

Arguments = dict[str, Any]
_NUMBERS = tuple(range(1, 100))
_NO_TOOL = {"en": "I have no tool for that.", "ko": "그 일을 할 도구가 없어요."}


@dataclass(frozen=True, slots=True)
class _ToolSpec:
    """A tool, how people ask for it ({0}, {1} are the arguments in order), its result and what is said then."""

    name: str
    description: str
    parameters: tuple[tuple[str, str], ...]
    draw: Callable[[Random, int], tuple[Any, ...]]
    english: tuple[str, ...]
    korean: tuple[str, ...]
    result: Callable[[Random, tuple[Any, ...]], dict[str, Any]]
    said: tuple[str, str]

    def definition(self) -> Tool:
        properties = {name: {"type": kind} for name, kind in self.parameters}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def _city(rng: Random, language: int) -> tuple[Any, ...]:
    return (pick(rng, CITIES)[language],)


def _two_words(rng: Random, language: int) -> tuple[Any, ...]:
    return (f"{pick(rng, COMMON_WORDS)} {pick(rng, COMMON_WORDS)}",)


def _name_and_words(rng: Random, language: int) -> tuple[Any, ...]:
    return (pick(rng, ENGLISH_NAMES), f"{pick(rng, COMMON_WORDS)} {pick(rng, COMMON_WORDS)}")


TOOLS = (
    _ToolSpec("get_weather", "Current weather of a city", (("city", "string"),), _city,
              ("What is the weather in {0}?", "How is the weather in {0} today?", "Is it warm in {0}?", "Weather in {0}, please.",
               "Check the weather in {0}."),
              ("{0} 날씨 어때요?", "오늘 {0} 날씨를 알려 줘.", "{0}의 날씨는?", "{0} 날씨 확인해 줘."),
              lambda rng, args: {"temperature": rng.randrange(36), "sky": pick(rng, ("sunny", "cloudy", "rainy", "windy"))},
              ("It is {temperature} degrees and {sky} in {0}.", "{0}의 기온은 {temperature}도예요.")),
    _ToolSpec("get_time", "Local time of a city", (("city", "string"),), _city,
              ("What time is it in {0}?", "Tell me the time in {0}.", "Current time in {0}?", "How late is it in {0} now?"),
              ("{0}은 지금 몇 시예요?", "{0} 시간을 알려 줘.", "{0}의 현재 시각은?"),
              lambda rng, args: {"time": f"{rng.randrange(24)}:{rng.randrange(10, 60)}"},
              ("It is {time} in {0}.", "{0}은 지금 {time}이에요.")),
    _ToolSpec("set_timer", "Start a timer", (("minutes", "integer"),), lambda rng, language: (pick(rng, _NUMBERS),),
              ("Set a timer for {0} minutes.", "Wake me in {0} minutes.", "Start a {0} minute timer.", "Remind me in {0} minutes."),
              ("{0}분 타이머를 맞춰 줘.", "{0}분 뒤에 알려 줘.", "타이머 {0}분."),
              lambda rng, args: {"ok": True},
              ("The timer is set for {0} minutes.", "{0}분 타이머를 맞췄어요.")),
    _ToolSpec("search", "Search the web", (("query", "string"),), _two_words,
              ("Search for {0}.", "Search the web for {0}.", "Look up {0} online.", "Find pages about {0}."),
              ("{0} 검색해 줘.", "웹에서 {0} 찾아 줘.", "인터넷에서 {0} 검색해 주세요."),
              lambda rng, args: {"hits": 1 + rng.randrange(98)},
              ("I found {hits} pages about {0}.", "{0}에 대한 페이지 {hits}개를 찾았어요.")),
    _ToolSpec("send_message", "Send a message to a person", (("to", "string"), ("text", "string")), _name_and_words,
              ("Send {0} the message '{1}'.", "Message {0}: '{1}'", "Write to {0}: '{1}'", "Tell {0} '{1}'."),
              ("{0}에게 '{1}' 메시지를 보내 줘.", "{0}에게 '{1}' 보내 줘.", "{0}에게 '{1}'라고 전해 줘."),
              lambda rng, args: {"sent": True},
              ("I sent the message to {0}.", "{0}에게 메시지를 보냈어요.")),
    _ToolSpec("play_song", "Play a song", (("title", "string"),), _two_words,
              ("Play the song '{0}'.", "Play '{0}'.", "I want to hear '{0}'.", "Put on the song '{0}'."),
              ("'{0}' 노래 틀어 줘.", "'{0}' 재생해 줘.", "'{0}' 듣고 싶어."),
              lambda rng, args: {"playing": True},
              ("Now playing '{0}'.", "'{0}' 재생 중이에요.")),
    _ToolSpec("set_light", "Set the brightness of a lamp in percent", (("room", "string"), ("percent", "integer")),
              lambda rng, language: (pick(rng, (("kitchen", "부엌"), ("bedroom", "침실"), ("office", "사무실"), ("garage", "차고"),
                                                ("hall", "복도"), ("bathroom", "욕실")))[language], pick(rng, _NUMBERS)),
              ("Set the {0} light to {1} percent.", "Dim the {0} lamp to {1} percent.", "{1} percent light in the {0}, please."),
              ("{0} 조명을 {1}퍼센트로 해 줘.", "{0} 불을 {1}퍼센트로 맞춰 줘."),
              lambda rng, args: {"ok": True},
              ("The {0} light is at {1} percent.", "{0} 조명을 {1}퍼센트로 맞췄어요.")),
    _ToolSpec("book_table", "Book a table in a restaurant", (("people", "integer"), ("time", "string")),
              lambda rng, language: (2 + rng.randrange(8), f"{17 + rng.randrange(5)}:{pick(rng, ('00', '15', '30', '45'))}"),
              ("Book a table for {0} at {1}.", "Reserve a table for {0} people at {1}.", "I need a table at {1} for {0} people."),
              ("{1}에 {0}명 예약해 줘.", "{0}명 자리를 {1}에 예약해 주세요."),
              lambda rng, args: {"booked": True},
              ("The table for {0} is booked at {1}.", "{1}에 {0}명 자리를 예약했어요.")),
)  # fmt: skip


def _draw(rng: Random) -> Exchange:
    language = 0 if chance(rng, 0.65) else 1
    offered = rng.sample(TOOLS, 1 + rng.randrange(3))
    definitions = tuple(tool.definition() for tool in offered)
    if chance(rng, 0.12):
        return _draw_refusal(rng, language, [tool.name for tool in offered], definitions)
    tool = offered[0]
    rng.shuffle(offered)
    definitions = tuple(t.definition() for t in offered)
    arguments = tool.draw(rng, language)
    question = pick(rng, (tool.english, tool.korean)[language]).format(*arguments)
    key = f"{tool.name}:{':'.join(map(str, arguments))}:{question if len(tool.parameters) == 1 and tool.draw is _city else ''}"
    call = _call(tool, arguments)
    asked = (user(question), call)
    if chance(rng, 0.6):
        return Exchange(key, key, asked, ("call", answer_text(call)), tools=definitions)
    result = tool.result(rng, arguments)
    said = tool.said[language].format(*arguments, **result)
    turns = (*asked, {"role": "tool", "content": json.dumps(result, ensure_ascii=False)}, assistant(said))
    facts = [str(value) for value in result.values() if not isinstance(value, bool)] or [str(arguments[0])]
    return Exchange(key, key, turns, ("said", *(fact for fact in facts if fact in said)), tools=definitions)


def _draw_refusal(rng: Random, language: int, offered: list[str], definitions: tuple[Tool, ...]) -> Exchange:
    tool = pick(rng, [tool for tool in TOOLS if tool.name not in offered])
    arguments = tool.draw(rng, language)
    question = pick(rng, (tool.english, tool.korean)[language]).format(*arguments)
    answer = _NO_TOOL[("en", "ko")[language]]
    key = f"none:{question}"
    return Exchange(key, f"none:{tool.name}", (user(question), assistant(answer)), ("none", answer), tools=definitions)


def _call(tool: _ToolSpec, arguments: tuple[Any, ...]) -> Message:
    named = dict(zip((name for name, _ in tool.parameters), arguments, strict=True))
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": tool.name, "arguments": named}}],
    }


def parse_calls(answer: str) -> list[Any] | None:
    """The calls of an answer that consists of nothing else; None if it is not so."""
    parts = [part.strip() for part in answer.strip().split("<tool_call>")]
    if parts[0] or len(parts) == 1 or not all(part.endswith("</tool_call>") for part in parts[1:]):
        return None
    try:
        return [json.loads(part.removesuffix("</tool_call>")) for part in parts[1:]]
    except ValueError:
        return None


def score(check: tuple[str, ...], answer: str) -> float:
    """1.0 for the very call, for a sentence that holds the tool's result, or for saying that no tool fits."""
    kind, *expected = check
    if kind == "call":
        return float(parse_calls(answer) == parse_calls(expected[0]))
    if "<tool_call>" in answer or len(answer) > 200:
        return 0.0
    if kind == "none":
        return float(answer.strip().startswith(expected[0]))
    return float(all(mentions(answer, fact) for fact in expected))


SKILL = Skill("tool_calls", _draw, score, weight=1.4)
