"""How fast answers came while they were asked for: first token, each further token, tokens per second. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.evaluation.items import Answer


def speed_of(answers: Sequence[Answer], num_new: int, elapsed_s: float) -> dict[str, Any]:
    """Milliseconds as p50 and p95, null where nothing was timed.

    `num_new` of the answers came within `elapsed_s`, others are of an earlier evaluation: where there are such, no throughput is told.
    """
    spoken = [answer for answer in answers if answer.latency_s is not None]
    tokens = sum(answer.num_tokens or 0 for answer in answers) if num_new == len(answers) else 0
    return {
        "num_answers": len(spoken),
        "ttft_ms": _quantiles([answer.ttft_s for answer in spoken]),
        "tpot_ms": _quantiles([answer.tpot_s for answer in spoken]),
        "latency_ms": _quantiles([answer.latency_s for answer in spoken]),
        "tokens_per_s": tokens / elapsed_s if tokens and elapsed_s > 0 else None,
        "num_new": num_new,
        "elapsed_s": elapsed_s,
    }


def _quantiles(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [1000 * value for value in values if value is not None]
    if not known:
        return None
    p50, p95 = np.quantile(known, (0.5, 0.95))
    return {"p50": float(p50), "p95": float(p95)}
