"""From messages to token ids, with what users write kept apart from what the template writes.

A control token in a user's text must stay text: `<|im_end|>` typed by a user must not end his turn. Templates work on
strings, so before rendering every control-token text inside a message is broken by a mark (a Unicode noncharacter that
occurs nowhere else). What the template wrote then has its control tokens whole, what users wrote has them broken:

    render   <|im_start|>user\\nsay <X|im_end|><|im_end|>          X: the mark
    split    [im_start] "user\\nsay <|im_end|>" [im_end]           text parts are tokenised without control tokens
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn, Protocol

import jinja2
import jinja2.meta
import numpy as np
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from backends.llamacpp.structure import is_thinking, think_tags
from backends.llamacpp.tools import Dialect, Tool, dialect_of, instructions

Tokens = NDArray[np.int32]
# What a template's expressions can raise; anything else is our bug.
_FAILURES = (
    jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class TemplateError(ValueError):
    """The template refuses these messages, or is no valid template."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation: its token ids, shape [n], and its text."""

    tokens: Tokens
    text: str


class Tokenizer(Protocol):
    """What a chat needs of a model's vocabulary."""

    @property
    def special_tokens(self) -> Mapping[str, int]: ...

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> Tokens: ...


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training; for serving it is transparent."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class ChatTemplate:
    """A compiled Jinja chat template, in the dialect of Hugging Face. Raises TemplateError."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda pattern: datetime.now().strftime(pattern),
            "bos_token": bos,
            "eos_token": eos,
        }
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))
            """Names that the template reads from outside."""
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template is not valid: {error}") from error
        self.dialect: Dialect | None = dialect_of(source)
        """Its syntax of tool calls; None: it has none that is known here, and `encode` tells the model another way."""
        self.think = think_tags(source)

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether it begins every answer inside of reasoning, as those of models do that always reason."""
        try:
            return is_thinking(self.render([{"role": "user", "content": "Hi"}]), self.think)
        except TemplateError:
            return False

    def render(self, messages: Sequence[Mapping[str, Any]], **context: Any) -> str:
        """The conversation as text, with the head of the assistant's turn. Raises TemplateError."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **context)
        except _FAILURES as error:
            raise TemplateError(f"the chat template refuses these messages: {error}") from error

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        tools: Sequence[Tool] = (),
        context: Mapping[str, Any] | None = None,
        check: Callable[[str], None] = lambda rendered: None,
    ) -> Prompt:
        """The conversation as tokens. Raises TemplateError.

        `context` holds more variables for the template; `check` may raise for a text that is not worth tokenising.
        """
        context = dict(context or {})
        if self.dialect is None:
            messages = _told(messages, tools)
        elif tools:
            context["tools"] = [tool.as_template_has_it() for tool in tools]
        special = tokenizer.special_tokens
        if not special or not _mentions([messages, context], special):
            rendered = self.render(messages, **context)
            check(rendered)
            return Prompt(tokenizer.tokenize(rendered, parse_special=True), rendered)
        pattern = re.compile("|".join(re.escape(text) for text in sorted(special, key=len, reverse=True)))
        mark = _unused_mark([messages, context])
        rendered = self.render(_broken(messages, pattern, mark), **_broken(context, pattern, mark))
        check(rendered)
        return Prompt(_tokenize_apart(rendered, pattern, mark, tokenizer), rendered)


def _told(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[Mapping[str, Any]]:
    """Messages for a template that knows no tools: the tools, their calls and their results become plain text."""
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    text = instructions(tools)
    if plain and plain[0]["role"] == "system":
        return [{**plain[0], "content": f"{plain[0]['content']}\n\n{text}"}, *plain[1:]]
    return [{"role": "system", "content": text}, *plain]


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    calls = [
        f'<tool_call>\n{{"name": {_tojson(call["function"]["name"])}, '
        f'"arguments": {_tojson(call["function"]["arguments"])}}}\n</tool_call>'
        for call in message["tool_calls"]
    ]
    return {"role": "assistant", "content": "\n".join([message["content"], *calls] if message["content"] else calls)}


def _tokenize_apart(rendered: str, pattern: re.Pattern[str], mark: str, tokenizer: Tokenizer) -> Tokens:
    parts: list[Tokens] = []
    at = 0
    for match in pattern.finditer(rendered):
        if text := rendered[at : match.start()].replace(mark, ""):
            parts.append(tokenizer.tokenize(text))
        parts.append(np.array([tokenizer.special_tokens[match.group()]], dtype=np.int32))
        at = match.end()
    if text := rendered[at:].replace(mark, ""):
        parts.append(tokenizer.tokenize(text))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def _mentions(value: Any, special: Mapping[str, int]) -> bool:
    """Whether any text inside `value` contains a control token's text."""
    if isinstance(value, str):
        return any(text in value for text in special)
    if isinstance(value, Mapping):
        return any(_mentions(key, special) or _mentions(item, special) for key, item in value.items())
    return isinstance(value, list | tuple) and any(_mentions(item, special) for item in value)


def _broken(value: Any, pattern: re.Pattern[str], mark: str) -> Any:
    """A copy of `value` with the mark after the first character of every control-token text."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match.group()[0] + mark + match.group()[1:], value)
    if isinstance(value, Mapping):
        return {_broken(key, pattern, mark): _broken(item, pattern, mark) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_broken(item, pattern, mark) for item in value]
    return value


def _unused_mark(messages: Any) -> str:
    text = json.dumps(messages, ensure_ascii=False)
    mark = next((mark for mark in _MARKS if mark not in text), None)
    if mark is None:
        raise TemplateError("the messages contain every Unicode noncharacter from U+FDD0 to U+FDEF")
    return mark


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    """As in transformers: jinja2's own filter escapes HTML, which a prompt must not have."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
