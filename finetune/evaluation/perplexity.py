"""Perplexity of expected answers: how surprised a model is by what it should say. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from finetune.evaluation.items import Answer, Item

NUM_ITEMS = 100


def asked_for(items: Sequence[Item]) -> list[Item]:
    """The same items, asked for the log-probability of what they expect: texts alone, as what is sampled by other means has no tokens."""
    return [
        replace(item, kind="given") for item in items if item.kind == "chat" and "<tool_call>" not in item.expected
    ][:NUM_ITEMS]


def perplexity_of(by_model: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Of all tokens of the answers, without their ends; `by_item` are nats per token."""
    tokens = [sum(answer.num_tokens or 0 for answer in answers) for answers in by_model]
    sums = [math.fsum(-answer.scores[0] for answer in answers) for answers in by_model]
    return {
        "num_items": len(by_model[0]),
        "num_tokens": tokens[0],
        "by_model": [math.exp(total / num) for total, num in zip(sums, tokens, strict=True)],
        "by_item": [[-answer.scores[0] / max(1, answer.num_tokens or 0) for answer in answers] for answers in by_model],
    }
