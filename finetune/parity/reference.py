"""What transformers and PEFT say of the cases, in float32: scores by base, adapter and wrong scales, greedy answers. A child computes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.adapter.upload import CONFIG
from backends.modelfolder import read_optional_json
from finetune.jsonchild import Tell, run, silent
from finetune.parity.cases import Case

MODULE = "finetune.parity.reference_child"
Rows = tuple[tuple[float, ...], ...]
"""For each case the log-probability of each token but the first."""


@dataclass(frozen=True, slots=True)
class Greedy:
    """An answer of the reference, with its end token where it ended; margins[i]: by how many nats token i led."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]
    has_ended: bool

    @property
    def spoken(self) -> tuple[int, ...]:
        """Without the end token."""
        return self.ids[:-1] if self.has_ended else self.ids


@dataclass(frozen=True, slots=True)
class Reference:
    base: Rows
    adapter: Rows
    answers: tuple[Greedy, ...]


def compute(base: Path, adapter: Path, cases: Sequence[Case], tell: Tell = silent, device: str = "") -> Reference:
    """Raises TrainError."""
    prompts = [{"ids": case.prompt, "budget": case.budget} for case in cases]
    told = _ask(base, adapter, {"texts": [case.ids for case in cases], "prompts": prompts, "scales": {}}, tell, device)
    answers = tuple(Greedy(tuple(one["ids"]), tuple(one["margins"]), one["has_ended"]) for one in told["answers"])
    return Reference(_rows(told["base"]), _rows(told["adapter"]), answers)


def rescaled(
    base: Path, adapter: Path, cases: Sequence[Case], tell: Tell = silent, device: str = ""
) -> dict[str, Rows]:
    """As wrong scales would have it, by what each is called. Raises TrainError."""
    orders = {"texts": [case.ids for case in cases], "prompts": [], "scales": wrong_scales(adapter)}
    return {name: _rows(rows) for name, rows in _ask(base, adapter, orders, tell, device)["scaled"].items()}


def wrong_scales(adapter: Path) -> dict[str, float]:
    """What goes wrong with alpha, r and sqrt(r) in practice."""
    root = math.sqrt(int(read_optional_json(adapter / CONFIG).get("r") or 1))
    scales = {"x0.5": 0.5, "x2": 2.0}
    if root not in (0.5, 1.0, 2.0):
        scales |= {f"x sqrt(r) = {root:.3g}": root, f"x 1/sqrt(r) = {1 / root:.3g}": 1 / root}
    return scales


def _ask(base: Path, adapter: Path, orders: Mapping[str, Any], tell: Tell, device: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="forgegate-parity-") as folder:
        asked, told = Path(folder, "orders.json"), Path(folder, "told.json")
        asked.write_text(json.dumps(orders), encoding="utf-8")
        where = ("--device", device) if device else ()
        run(MODULE, ("--base", base, "--adapter", adapter, "--orders", asked, "--out", told, *where), tell)
        content: dict[str, Any] = json.loads(told.read_bytes())
        return content


def _rows(rows: Sequence[Sequence[float]]) -> Rows:
    return tuple(tuple(row) for row in rows)
