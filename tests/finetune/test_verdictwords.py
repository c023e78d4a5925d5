"""A verdict as people read it."""

from __future__ import annotations

from typing import Any

from finetune.gating.verdict import Judged, Verdict
from finetune.verdictwords import lines, live_words

TASK = Judged("tickets", 500, 40, 0.0, 0.9712, 97.12, 95.1, 98.4, "better")
SKILL = Judged("system_prompts", 1000, 321, 0.98, 0.9, -8.0, -9.5, -6.4, "forgotten")
DOCUMENT: dict[str, Any] = {
    "candidate": "s@bbbbbbbbbbbb",
    "live": [],
    "base": "demo@0123456789ab",
    "rule": "improve",
    "outcome": "NO-GO",
}


def test_a_line_for_each_skill_in_columns() -> None:
    shown = list(lines(DOCUMENT, Verdict("NO-GO", "improve", TASK, (SKILL,), ("system_prompts: forgotten",), None)))
    assert shown == [
        "s@bbbbbbbbbbbb in place of the base demo@0123456789ab, rule improve: NO-GO",
        "  task or skill   items   live  candidate  difference          bounds",
        "  tickets           500   0.0%      97.1%       +97.1  +95.1 to +98.4  better",
        "  system_prompts  1,000  98.0%      90.0%        -8.0    -9.5 to -6.4  forgotten",
        "  system_prompts: forgotten",
    ]


def test_how_much_would_settle_it() -> None:
    *_, last = lines(DOCUMENT, Verdict("INCONCLUSIVE", "improve", TASK, (SKILL,), (), 7400))
    assert last == "  to settle it: about 7,400 items of each undecided one (--max-items, or more rows held out)"


def test_what_is_live() -> None:
    one, two = {"adapter": "s@aaaaaaaaaaaa", "weight": 3}, {"adapter": "s@cccccccccccc", "weight": 1}
    assert live_words({**DOCUMENT, "live": [one]}) == "s@aaaaaaaaaaaa"
    assert live_words({**DOCUMENT, "live": [one, two]}) == "s@aaaaaaaaaaaa (75%) and s@cccccccccccc (25%)"
