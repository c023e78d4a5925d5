"""A verdict as text."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.parity.measure import Verdict

_STATES = {"holds": "holds", "fails": "FAILS", "unchecked": "is NOT CHECKED"}


def lines(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.version}: parity {outcome(verdict)} on {verdict.num_cases} held-out rows"
    for check in verdict.checks:
        yield f"  {check.state:<8}{check.name:<8}{check.words}"
    if verdict.excluded:
        yield f"  passed over: {'; '.join(f'{count} rows {why}' for why, count in verdict.excluded.items())}"
    for cause in verdict.causes:
        yield f"likely cause: {cause.name}: {cause.words}"


def outcome(verdict: Verdict) -> str:
    """With what was not checked."""
    unchecked = f" (not checked: {', '.join(verdict.unchecked)})" if verdict.unchecked else ""
    return f"{_STATES[verdict.state]}{unchecked}"
