"""What a fine-tuning run would take: `forgegate train RECIPE --plan --json`, as a child."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backends.pythons import child_env
from gateway.exits import UNABLE, CommandError, UsageError
from gateway.training import PLAN_MODULES, python_for

RECIPE = "llama-3.1-8b-qlora-24gb"
ROWS = 5000
GPU = "RTX 4090"
"""The example that the advice comes with: an 8B model, 5,000 rows, one card of 24 GB."""
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the plan is made for; None: as `forgegate train --plan` has it."""

    recipe: str = RECIPE
    rows: int | None = ROWS
    """None: what the recipe's own data has."""
    row_tokens: int | None = None
    gpu: str | None = GPU
    """None: what is in this machine."""
    price: float | None = None
    """Of one hour of it."""

    def options(self) -> list[str]:
        given = {"rows": self.rows, "row-tokens": self.row_tokens, "gpu": self.gpu, "gpu-hour-price": self.price}
        return [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]


class PlanFailed(CommandError):
    """There is no plan; the message is the child's own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def shipped() -> dict[str, Path]:
    """Recipes that come with forgegate, by name."""
    found = find_spec("finetune")
    places = list(found.submodule_search_locations or ()) if found else []
    return {path.stem: path for place in places for path in sorted(Path(place, "recipes").glob("*.yaml"))}


def recipe_path(name: str) -> Path:
    """Of a file, or a shipped recipe by its name. Raises UsageError."""
    path, known = Path(name).expanduser(), shipped()
    if path.is_file():
        return path
    if name in known:
        return known[name]
    raise UsageError(f"--recipe {name}: no such file, and none of the shipped recipes: {', '.join(known)}")


def numbers(asked: Asked) -> Mapping[str, Any]:
    """The plan as `forgegate train --plan --json` prints it. Raises UsageError, TrainerMissing, PlanFailed."""
    path = recipe_path(asked.recipe)
    python = python_for(PLAN_MODULES)
    command = [python, "-P", "-m", "finetune.train", str(path), "--plan", "--json", *asked.options()]
    try:
        done = subprocess.run(
            command, env=child_env(), capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PlanFailed(f"forgegate train --plan: {exc}", UNABLE) from exc
    if done.returncode != 0:
        raise PlanFailed(_complaint(done.stderr), done.returncode if done.returncode > 0 else UNABLE)
    return dict(json.loads(done.stdout))


def _complaint(text: str) -> str:
    """What stands behind `error:` in each line; argparse has its program's name before it."""
    found = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
    return "; ".join(found) or (text.strip().splitlines() or ["it said nothing"])[-1]
