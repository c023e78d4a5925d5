"""Goldens and engine scores made up from numbers, so that what a proof should say is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from backends.adapter.golden import Golden
from backends.adapter.probe import Text, probe_id

NUM_TEXTS, TEXT_TOKENS = 40, 26


def made_golden(seed: int = 0, num_layers: int = 4, effect: float = 1.0, num_own: int = 2) -> Golden:
    """An adapter whose layers each add their part, some more than others, to random scores."""
    draw = Random(seed)
    shared = Random(99)
    texts = [Text(tuple(shared.randrange(1000) for _ in range(TEXT_TOKENS))) for _ in range(NUM_TEXTS)]
    texts += [Text(tuple(draw.randrange(1000) for _ in range(TEXT_TOKENS)), 10) for _ in range(num_own)]
    count = sum(text.num_scored for text in texts)
    base = [-5 * draw.random() for _ in range(count)]
    parts = [[effect * draw.gauss(0, 1) for _ in range(count)] for _ in range(num_layers)]
    change = [sum(part[place] for part in parts) for place in range(count)]
    twisted = [effect * draw.gauss(0, 1) for _ in range(count)]
    return Golden(
        base_digest="sha256:" + "a" * 64,
        adapter_digest=f"{seed:064x}",
        probe_id=probe_id(texts[:NUM_TEXTS]),
        num_shared=NUM_TEXTS,
        texts=tuple(texts),
        base=base,
        adapter=added(base, change),
        decoys={
            "scale x0.5": added(base, change, 0.5),
            "scale x2": added(base, change, 2.0),
            "q/k not permuted": added(added(base, change), twisted),
            **{f"layer {n} missing": added(added(base, change), part, -1.0) for n, part in enumerate(parts)},
        },
    )


def added(row: Sequence[float], change: Sequence[float], factor: float = 1.0) -> list[float]:
    return [value + factor * more for value, more in zip(row, change, strict=True)]


def as_served(golden: Golden, row: Sequence[float], noise: float = 0.0, seed: int = 1) -> list[list[float]]:
    """What an engine gives for every token but each text's first, where the scored ones have the scores of `row`, with noise."""
    draw = Random(seed)
    scores, begin = [], 0
    for text in golden.texts:
        own = [value + (draw.gauss(0, noise) if noise else 0.0) for value in row[begin : begin + text.num_scored]]
        scores.append([-1.0] * (text.first - 1) + own)
        begin += text.num_scored
    return scores
