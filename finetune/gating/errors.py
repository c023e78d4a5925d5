"""Errors of the gate: what it was given cannot be judged."""

from __future__ import annotations

from finetune.errors import TrainError


class GateUnusable(TrainError):
    """Scores, limits or a verdict's document that cannot be used; one sentence that names the thing and the fix."""

    exit_code = 2
