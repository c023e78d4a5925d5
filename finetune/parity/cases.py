"""Held-out rows as training saw them: the messages before the last answer, and the token ids with where it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from finetune.dataset.errors import DataUnusable
from finetune.dataset.formats import COMPLETION, TEXT
from finetune.dataset.row import ASSISTANT, Row, messages
from finetune.dataset.tokens import END_MARKS, ModelTokens, Rendered, is_rendered
from finetune.errors import RecipeUnusable
from finetune.parity.heldout import HeldOut

_SEED = 7
MIN_BUDGET, MAX_BUDGET = 32, 512
NO_ANSWER = "without an answer"
TOOLS = "with tool calls, which an endpoint takes apart"
WRITTEN = "with a template's marks in their texts, which no chat sends"
LONG = "longer than the context that is served, with room for the answer"
REFUSED = "that the chat template refuses, which training leaves out too"
SPECIAL = "with special tokens' texts in a message"
TRAINED = "with special tokens' texts in a message, which training reads as those tokens and the endpoint as text"


@dataclass(frozen=True, slots=True)
class Case:
    """`ids` end with the answer's end token; ids[:first] are the prompt."""

    number: int
    """Of the row in its file, from 1."""
    messages: tuple[Mapping[str, Any], ...]
    ids: tuple[int, ...]
    first: int
    has_special: bool
    """Whether a message holds a special token's text."""

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids[: self.first]

    @property
    def num_answer_tokens(self) -> int:
        return len(self.ids) - self.first

    @property
    def budget(self) -> int:
        """Tokens in which a greedy answer must end: twice what the held-out one has, within bounds."""
        return min(MAX_BUDGET, max(MIN_BUDGET, 2 * self.num_answer_tokens))

    @property
    def num_positions(self) -> int:
        """Of the context, to score the row and to answer its prompt."""
        return max(len(self.ids) + 1, self.first + self.budget)


@dataclass(frozen=True, slots=True)
class Cases:
    chosen: tuple[Case, ...]
    num_rows: int
    """That are held out."""
    excluded: Mapping[str, int]
    """How many were passed over, by why."""


def choose(held_out: HeldOut, tokens: ModelTokens, num_wanted: int, max_context: int, is_literal: bool) -> Cases:
    """The same ones for the same rows, from all over them. Raises DataError, RecipeUnusable where none can be used.

    `is_literal`: the endpoint takes a special token's text in a message for text; rows that have one are passed over where it does not.
    """
    chosen: list[Case] = []
    excluded: Counter[str] = Counter()
    special = special_texts(tokens)
    places = list(held_out.places)
    Random(_SEED).shuffle(places)
    for place in places:
        if len(chosen) == num_wanted:
            break
        made = case_of(held_out.loaded.row(place), tokens, special, max_context)
        if isinstance(made, str):
            excluded[made] += 1
        elif made.has_special and not (is_literal and is_read_literally(made, tokens, special)):
            excluded[TRAINED if is_literal else SPECIAL] += 1
        else:
            chosen.append(made)
    if not chosen:
        reasons = "; ".join(f"{count} {why}" for why, count in excluded.items()) or "there are none"
        raise RecipeUnusable(f"no row of {held_out.words} can be asked: {reasons}")
    return Cases(tuple(chosen), len(places), dict(excluded))


def case_of(row: Row, tokens: ModelTokens, special: Collection[str], max_context: int) -> Case | str:
    """A text says why the row is none."""
    if row.form == COMPLETION and is_rendered(row):
        return WRITTEN
    said = [turn for turn in row.turns if turn.role == ASSISTANT]
    if any(turn.has_calls for turn in row.turns):
        return TOOLS
    if not said or not said[-1].text.strip():
        return NO_ANSWER
    before = _before_last_answer(row)
    try:
        ids, first = last_answer(tokens.render(row))
    except DataUnusable:
        return REFUSED
    if not first or first >= len(ids):
        return NO_ANSWER
    has_special = any(text in str(message["content"]) for message in before for text in special)
    case = Case(row.number, tuple(before), ids, first, has_special)
    return case if case.num_positions <= max_context else LONG


def is_read_literally(case: Case, tokens: ModelTokens, special: Collection[str]) -> bool:
    """Whether training takes special tokens' texts in this row's messages for text: then its prompt has but the template's own."""
    from jinja2 import TemplateError

    plain = [{**message, "content": _without(str(message["content"]), special)} for message in case.messages]
    try:
        rendered = tokens.tokenizer.apply_chat_template(plain, return_dict=True, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError):  # a message is empty now, which this template refuses
        return False
    known = set(tokens.tokenizer.added_tokens_decoder)
    return sum(token in known for token in case.prompt) == sum(token in known for token in rendered["input_ids"])


def _without(text: str, special: Collection[str]) -> str:
    for one in sorted(special, key=len, reverse=True):
        text = text.replace(one, "")
    return text


def _before_last_answer(row: Row) -> list[dict[str, Any]]:
    found = messages(row)
    last = max(place for place, message in enumerate(found) if message["role"] == ASSISTANT)
    if row.form == TEXT:
        for message in found:
            for mark in END_MARKS:
                message["content"] = message["content"].removesuffix(mark)
    return found[:last]


def last_answer(rendered: Rendered) -> tuple[tuple[int, ...], int]:
    """The ids up to the end of the last span that the loss counts, and where it begins; 0 where none is."""
    end = max((place + 1 for place, flag in enumerate(rendered.is_trained) if flag), default=0)
    first = end
    while first and rendered.is_trained[first - 1]:
        first -= 1
    return rendered.ids[:end], first


def special_texts(tokens: ModelTokens) -> frozenset[str]:
    """What the tokenizer takes for special tokens wherever it stands."""
    added = tokens.tokenizer.added_tokens_decoder.values()
    return frozenset(str(token) for token in added if str(token).strip())
