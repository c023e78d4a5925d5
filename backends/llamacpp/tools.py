"""Tool calls: how a model's template has them written, and the grammar that makes an answer follow it.

    auto        text, or calls            required    at least one call            named    calls of that tool

Every call's arguments follow the schema of its tool, so they are always valid JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.llamacpp.grammar import GrammarError, json_rule, literal

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of its arguments, always of an object."""

    def as_template_has_it(self) -> dict[str, Any]:
        """OpenAI's shape, which chat templates were written for."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Dialect:
    """The text around the names and arguments of calls.

    first  NAME  after_name  {...}  after_arguments  [ again  NAME  after_name  {...}  after_arguments ]...  last
    """

    name: str
    trigger: str
    """With this text calls begin: a beginning of `first`."""
    first: str
    after_name: str
    after_arguments: str
    again: str = ""
    """Empty: one call at most. A line break may stand before it."""
    last: str = ""
    is_whole_answer: bool = False
    """A call is only recognised where the answer begins with it."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is written around names and arguments."""
        return self.first, self.after_name, self.after_arguments, self.again, self.last


_TAGGED = '<tool_call>\n{"name": "'
HERMES = Dialect(
    "hermes", "<tool_call>", _TAGGED, '", "arguments": ', "}\n</tool_call>", again=_TAGGED
)  # fmt: skip
"""Hermes, Qwen 2.5 and 3, the demo family; also what a model is told whose template knows no tools, or others than these."""
LLAMA3 = Dialect("llama3", '{"name": "', '{"name": "', '", "parameters": ', "}", is_whole_answer=True)
MISTRAL = Dialect(
    "mistral", "[TOOL_CALLS]", '[TOOL_CALLS] [{"name": "', '", "arguments": ', "}", again=', {"name": "', last="]"
)
MISTRAL_ARGS = Dialect("mistral-args", "[TOOL_CALLS]", "[TOOL_CALLS]", "[ARGS]", "", again="[TOOL_CALLS]")

_INSTRUCTIONS = """You can call these tools:
<tools>
%s
</tools>
To call one, answer with its name and arguments as JSON inside tags, like this:
<tool_call>
{"name": "NAME", "arguments": {"KEY": "VALUE"}}
</tool_call>"""


def dialect_of(template: str) -> Dialect | None:
    """The syntax that a chat template uses for calls; None: it has none of those known here."""
    if "tools" not in template:
        return None
    if "[TOOL_CALLS]" in template:
        return MISTRAL_ARGS if "[ARGS]" in template else MISTRAL
    if "<tool_call>" in template and "<function=" not in template:
        return HERMES
    if '"parameters": ' in template and "<|python_tag|>" in template:
        return LLAMA3
    return None


def instructions(tools: Sequence[Tool]) -> str:
    """What a model is told whose template cannot tell it."""
    shown = (json.dumps(tool.as_template_has_it()["function"], ensure_ascii=False) for tool in tools)
    return _INSTRUCTIONS % "\n".join(shown)


def check_name(name: str) -> bool:
    """Whether a tool may be called so."""
    return bool(_NAME.fullmatch(name))


def call_rules(
    tools: Sequence[Tool],
    dialect: Dialect,
    special_tokens: Mapping[str, int],
    *,
    content: str | None,
    must_call: bool,
    several: bool,
) -> list[str]:
    """Lark rules of which `answer` is calls, or content where `must_call` does not forbid it (None: any text).

    Raises GrammarError, whose path begins with the tool's name.
    """

    def text(value: str) -> str:
        return literal(value, special_tokens)

    choices = [f"{text(tool.name + dialect.after_name)} {_arguments(tool)}" for tool in tools]
    call = f"call: ( {' | '.join(choices)} ) {text(dialect.after_arguments)}"
    calls = f"call ( BREAK {text(dialect.again)} call )*" if several and dialect.again else "call"
    calls += f" {text(dialect.last)}"
    rules = [call, r"BREAK: /\n?/"]
    if must_call:
        return [f"answer: {text(dialect.first)} {calls}", *rules]
    if content is not None:
        return [f"answer: {content} | {text(dialect.first)} {calls}", *rules]
    rest = text(dialect.first.removeprefix(dialect.trigger))
    return [f"answer: TEXT | head {rest} {calls}", *_head(dialect, special_tokens), *rules]


def _head(dialect: Dialect, special_tokens: Mapping[str, int]) -> list[str]:
    """Free text up to where a call begins."""
    trigger = literal(dialect.trigger, special_tokens)
    if dialect.is_whole_answer:
        return [f"head: {trigger}", f"TEXT: /([^{re.escape(dialect.trigger[0])}](.|\\n)*)?/"]
    lazy = "" if dialect.trigger in special_tokens else "[lazy]"
    return [f"head{lazy}: TEXT {trigger}", "TEXT: /(.|\\n)*/"]


def _arguments(tool: Tool) -> str:
    try:
        return json_rule(tool.parameters)
    except GrammarError as error:
        where = f"{tool.name}.parameters" + (f".{error.path}" if error.path else "")
        raise GrammarError(str(error), where) from error
