"""What the command names in its help, where nothing else need be imported."""

from __future__ import annotations

NUM_ITEMS = 500
"""Of each task, where nobody says otherwise."""
AT_A_TIME = 8
"""Requests at once."""
JUDGE_ITEMS = 100
"""That a judge compares."""
JUDGE_KEY = "FORGEGATE_JUDGE_KEY"
"""The variable that holds the key of the judge's endpoint."""
