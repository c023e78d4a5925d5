"""The form that a chat answer must have: put together from the model's template and the request.

    reasoning?  ( text | JSON of a schema | tool calls )

An answer without any demand has no grammar at all and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backends.llamacpp.grammar import MAX_GRAMMAR_BYTES, TOO_DEEP, GrammarError, json_rule, literal
from backends.llamacpp.message import Markup
from backends.llamacpp.tools import Tool, call_rules

THINK = ("<think>", "</think>")
"""The tags of DeepSeek R1, Qwen 3 and most that reason."""


def think_tags(template: str) -> tuple[str, str] | None:
    """The tags around reasoning that a chat template knows of."""
    return THINK if THINK[1] in template else None


def is_thinking(prompt: str, think: tuple[str, str] | None) -> bool:
    """Whether a rendered prompt ends inside an open reasoning tag."""
    return think is not None and prompt.rstrip().endswith(think[0])


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer must look like."""

    markup: Markup
    schema: Mapping[str, Any] | None = None
    """Of the content; None: any text."""
    tools: Sequence[Tool] = ()
    """Those that may be called."""
    must_call: bool = False
    several: bool = True
    """Whether more than one call may be made."""

    @property
    def is_free(self) -> bool:
        """Whether anything goes."""
        return self.schema is None and (self.markup.calls is None or not self.tools)

    def key(self) -> bytes:
        """The same for the same form. Raises GrammarError for schemas that are too long or too deep to look at."""
        parameters = [(tool.name, tool.parameters) for tool in self.tools]
        try:
            key = orjson.dumps((self.schema, parameters, self.must_call, self.several, self.markup))
        except orjson.JSONEncodeError:
            raise GrammarError(TOO_DEEP) from None
        if len(key) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"{len(key)} bytes of schema, at most {MAX_GRAMMAR_BYTES} are taken")
        return key

    def grammar(self, special_tokens: Mapping[str, int]) -> str:
        """Lark text for the answer. Raises GrammarError."""
        markup, must_call = self.markup, self.must_call
        content = None if self.schema is None else json_rule(self.schema)
        if markup.calls is not None and self.tools:
            rules = call_rules(
                self.tools, markup.calls, special_tokens, content=content, must_call=must_call, several=self.several
            )
        else:
            rules = [f"answer: {content}"]
        is_free = content is None and not must_call
        return "\n".join([*_start(markup, special_tokens, is_free=is_free), *rules])


def _start(markup: Markup, special_tokens: Mapping[str, int], *, is_free: bool) -> list[str]:
    """Rule `start`: where the answer proper is not free text, reasoning may come before it."""
    if markup.think is None or is_free:
        return ["start: answer"]
    first, last = (literal(tag, special_tokens) for tag in markup.think)
    lazy = "" if markup.think[1] in special_tokens else "[lazy]"
    start = "start: thought SPACE answer" if markup.is_thinking else f"start: answer | {first} thought SPACE answer"
    return [start, f"thought{lazy}: THOUGHT {last}", r"THOUGHT: /(.|\n)*/", r"SPACE: /[ \n]{0,4}/"]
