"""What batch invariance is judged by: prompts as token ids, and greedy answers with the margin of every token."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

NUM_ALTERNATIVES = 4
"""Asked for with every token: the end tokens may be likelier than the drawn one and are no alternatives, so two are too few."""

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a token that is a part of a character reads as; such tokens are told apart by the whole text only."""


class InvarianceError(RuntimeError):
    """It cannot be measured; one line says why."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt; `ids` are its tokens."""

    index: int
    skill: str
    ids: tuple[int, ...]
    turn: int = 0
    """The last earlier turn of its conversation is asked by the first so many ids; 0: it has no earlier turn."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts, and what of the vocabulary one must know to read the answers."""

    prompts: tuple[Prompt, ...]
    vocab_size: int
    end_tokens: dict[str, int]
    """Text -> id of the tokens that end an answer: never drawn here, so no alternatives either."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer. `margins`: of each token, its log-probability over that of the next best token, nats."""

    tokens: tuple[str, ...]
    margins: tuple[float, ...]
    end: int
    """Tokens before the first place where an end token was likelier than the drawn one: there the model would have stopped."""
    text: str | None = None
    num_cached: int = 0
    """Tokens of the prompt that were found in a prefix cache."""


def read_prompts(path: Path) -> PromptSet:
    """What `invariance_reference prompts` wrote. Raises InvarianceError."""
    try:
        found = orjson.loads(path.read_bytes())
        prompts = tuple(
            Prompt(index, str(row["skill"]), tuple(map(int, row["ids"])), int(row["turn"]))
            for index, row in enumerate(found["prompts"])
        )
        ends = {str(text): int(token) for text, token in found["end_tokens"].items()}
        return PromptSet(prompts, int(found["vocab_size"]), ends)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvarianceError(f"{path} holds no prompts: {type(exc).__name__}: {exc}") from exc


def read_answers(path: Path) -> list[Answer]:
    """What `invariance_reference answers` wrote. Raises InvarianceError."""
    try:
        rows = orjson.loads(path.read_bytes())
        return [Answer(tuple(row["tokens"]), tuple(map(float, row["margins"])), int(row["end"])) for row in rows]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise InvarianceError(f"{path} holds no answers: {type(exc).__name__}: {exc}") from exc


def answer_of(body: bytes, choice: int, num_tokens: int, end_tokens: Collection[str]) -> Answer:
    """Choice number `choice` of a /v1/completions body. Raises InvarianceError when it is not an answer of `num_tokens`."""
    try:
        found = orjson.loads(body)
        shown = found["choices"][choice]
        logprobs = shown["logprobs"]
        tokens = tuple(logprobs["tokens"])
        rows = list(zip(tokens, logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))
        margins = tuple(_margin(token, value, top, end_tokens) for token, value, top in rows)
        ends = (
            at for at, (_, value, top) in enumerate(rows) if any(top.get(text, value) > value for text in end_tokens)
        )
        end = next(ends, len(rows))
        cached = (found["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as exc:
        raise InvarianceError(f"an answer has no log-probabilities ({type(exc).__name__}: {exc})") from exc
    if len(tokens) != num_tokens:
        raise InvarianceError(f"an answer has {len(tokens)} tokens instead of {num_tokens}: is ignore_eos honoured?")
    return Answer(tokens, margins, end, str(shown["text"]), int(cached))


def first_difference(one: Answer, other: Answer) -> int | None:
    """Position of the first token that differs; None: wholly identical.

    Tokens that are parts of a character read alike, so where only the texts differ it is the first of those.
    """
    for position, (token, its) in enumerate(zip(one.tokens, other.tokens, strict=True)):
        if token != its:
            return position
    if one.text is None or other.text is None or one.text == other.text:
        return None
    return next((position for position, token in enumerate(one.tokens) if BROKEN in token), len(one.tokens) - 1)


def _margin(token: str, value: float, top: Mapping[str, Any], end_tokens: Collection[str]) -> float:
    others: Sequence[float] = [top[text] for text in top if text != token and text not in end_tokens]
    if not others:
        raise ValueError(f"{token!r} came without an alternative")
    return value - max(others)
