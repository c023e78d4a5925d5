"""What the doctor says of rows that a program has made or gathered: which of them are left out, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from finetune.dataset.checks import CHECKS, Fix
from finetune.dataset.doctor import Options, examine
from finetune.dataset.progress import Watch
from finetune.dataset.spool import Spool

DUPLICATES = ("duplicate", "near_duplicate")
ALL = tuple(check.name for check in CHECKS if check.fix is not Fix.NONE)
"""Every check for which `--fix` would leave a row out, or change it."""


def faults(paths: Sequence[Path], names: Collection[str], watch: Watch | None = None) -> Mapping[int, str]:
    """By number of the row, from 1 on over all files, the first check of these that finds something. Raises DataError."""
    reasons: dict[int, str] = {}
    with Spool() as spool:
        found = examine(paths, spool, Options(), watch)
        for check in CHECKS:
            if check.name in names:
                for number in found.findings[check.name].rows:
                    if check.name != "conflict" or number not in found.kept_answers:
                        reasons.setdefault(number, check.name)
    return reasons
