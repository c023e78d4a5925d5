"""The form that a chat answer must have: put together from the model's template and the request.

    reasoning?  ( text | JSON of a schema | tool calls )

An answer without any demand has no grammar at all and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.llamacpp.grammar import json_rule, literal
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


def answer_grammar(
    markup: Markup,
    special_tokens: Mapping[str, int],
    *,
    schema: Mapping[str, Any] | None,
    tools: Sequence[Tool],
    must_call: bool,
    several: bool,
) -> str | None:
    """Lark text for an answer, None where anything goes. Raises GrammarError.

    `schema` is for the content, `tools` are those that may be called, `several`: more than once.
    """
    content = None if schema is None else json_rule(schema)
    if markup.calls is not None and tools:
        rules = call_rules(tools, markup.calls, special_tokens, content=content, must_call=must_call, several=several)
    elif content is not None:
        rules = [f"answer: {content}"]
    else:
        return None
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
