"""The named skills of the demo family: what the corpus teaches and what the general-ability suite measures."""

from backends.demo.skills import (
    arithmetic,
    facts,
    glossary,
    json_answers,
    recall,
    smalltalk,
    support,
    system_prompts,
    text_ops,
    tool_calls,
    translation,
    unknown,
)
from backends.demo.skills.base import Exchange, Skill, is_held_out

SKILLS: dict[str, Skill] = {
    module.SKILL.name: module.SKILL
    for module in (
        smalltalk, arithmetic, facts, text_ops, json_answers, tool_calls, support, glossary, system_prompts, unknown, recall, translation,
    )
}  # fmt: skip

__all__ = ["SKILLS", "Exchange", "Skill", "is_held_out"]
