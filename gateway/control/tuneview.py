"""The result of a measurement, as the admin API and `forgegate engines tune` show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends.vllm.measured import Record
from backends.vllm.speculation import (
    OFF,
    Measurement,
    Rate,
    Rates,
    Setting,
    choose,
    cost,
    rates_of,
    setting_words,
    vary,
    worst_loss,
)
from backends.vllm.tuned import Tuned

NOISY = 0.2
"""Equal rounds that differ by more were disturbed."""


def tuned_event(engine_id: str, record: Record, before: Setting, tuned: Tuned, state: str) -> dict[str, Any]:
    """`state`: of the engine, afterwards."""
    measured, chosen = record.measured, choose(record.measured)
    return {
        "event": "tuned",
        "id": engine_id,
        "machine": record.subject.machine,
        "version": record.subject.version,
        "at": record.at,
        "streams": [_row(measured, chosen, num) for num in sorted(measured.off)],
        "chosen": {"words": setting_words(chosen), "depth": chosen.depth, "schedule": chosen.schedule},
        "before": setting_words(before),
        "loses_at_most": round(worst_loss(measured, chosen), 4),
        "is_taken": tuned.is_open,
        "state": state,
        "notes": list(_notes(measured, chosen, tuned)),
    }


def _row(measured: Measurement, chosen: Setting, num: int) -> dict[str, Any]:
    return {
        "streams": num,
        "off": _rate(measured.off[num]),
        "on": [
            {"depth": depth, **_rate(rates[num]), "needed": round(cost(measured, depth, num), 3)}
            for depth, rates in sorted(measured.on.items())
        ],
        "by_streams": _rate(measured.varied_rates[num]) if measured.varied else None,
        "chosen": {"depth": chosen.depth_at(num), **_rate(rates_of(measured, chosen)[num])},
    }


def _rate(rate: Rate) -> dict[str, float]:
    return {
        "tokens_per_s": round(rate.tokens_per_s, 1),
        "tokens_per_step": round(rate.tokens_per_step, 3),
        "spread": round(rate.spread, 3),
    }


def _notes(measured: Measurement, chosen: Setting, tuned: Tuned) -> Iterator[str]:
    trials: list[Rates] = [measured.off, *measured.on.values(), measured.varied_rates]
    spread = max(rate.spread for rates in trials for rate in rates.values())
    if spread > NOISY:
        yield (
            f"equal rounds differed by up to {spread:.0%}: something else ran on this machine; measure again when it is quiet, or "
            "with --passes 3"
        )
    if measured.varied is not None and chosen != measured.varied:
        lost = worst_loss(measured, measured.varied)
        yield f"{setting_words(measured.varied)}, would lose up to {lost:.0%}: where it is off, the drafter still reads along"
    best = vary(measured)
    if best.schedule and tuned.why_fixed:
        yield f"{tuned.why_fixed}; {setting_words(best)}, would be best"
    if chosen == OFF:
        yield "speculation wins nowhere by as much as it costs elsewhere: the engine is better off without it"
    largest = max(measured.off)
    if chosen.depth_at(largest) and (tuned.max_num_seqs is None or tuned.max_num_seqs > largest):
        yield f"beyond {largest} streams nothing was measured: it goes on as at {largest}; --streams takes more"
    if not tuned.is_open:
        yield "its pool sets the depth itself: nothing changes; `schedule: measured`, without rows, would take this"
