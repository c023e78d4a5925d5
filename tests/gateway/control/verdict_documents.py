"""Documents of verdicts as `forgegate gate` writes them."""

from __future__ import annotations

import json
from typing import Any

SUITE = "sha256:" + "5" * 64
A, B, C = ("support@" + digit * 12 for digit in "abc")
BASE = "demo@babababababa"


def skill(name: str, state: str = "kept", difference: float = 0.5) -> dict[str, Any]:
    return {
        "name": name, "num_items": 500, "num_clusters": 120, "live": 0.8, "candidate": round(0.8 + difference / 100, 6),
        "difference": difference, "lower": difference - 2, "upper": difference + 2, "state": state,
    }  # fmt: skip


def document(candidate: str, *live: str, base: str = BASE, outcome: str = "GO", **changes: Any) -> dict[str, Any]:
    """Held against `live`, each with weight 1; none: the base."""
    states = {"GO": "kept", "NO-GO": "forgotten", "INCONCLUSIVE": "undecided"}
    found: dict[str, Any] = {
        "format": "forgegate-verdict", "format_version": 1, "candidate": candidate,
        "live": [{"adapter": name, "weight": 1} for name in live], "base": base, "suite": SUITE, "rule": "improve",
        "outcome": outcome, "task": skill("tickets", "better", 8.0), "general": [skill("arithmetic", states[outcome])],
        "reasons": [] if outcome == "GO" else ["arithmetic is not kept"],
        "items_to_settle": 9000 if outcome == "INCONCLUSIVE" else None, "at": "2026-01-31T12:00:00+00:00", "who": "ann",
    }  # fmt: skip
    return found | changes


def encoded(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()
