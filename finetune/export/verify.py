"""Hold a merged model against base and adapter: python -m finetune.export.verify --merged MODEL --references EXPORT --tensors FILE

Standard output has JSON lines: progress as `finetune.golden` tells it, at the end
    {"event": "verified", "is_within", "difference", "limit", "effect", "num_tokens"}     exit code 0
    {"event": "refused" | "failed", "message"}                                              2, 3
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.adapter.golden import Golden, read_golden
from backends.adapter.upload import REFERENCE
from backends.errors import BackendError, EngineUnavailable, ModelUnusable
from backends.modelfolder import stored_tensors, weight_files
from finetune.golden import say

if TYPE_CHECKING:
    from finetune.reference import Plain

ROUNDINGS = 2.0
"""So many times what one more rounding changes may lie between the merged model and base with adapter."""
FLOOR = 1e-3
"""Nat: float32 sums in another order differ by this much."""
_BITS = {"F32": 24, "BF16": 8, "F16": 11}
_SEED = 20


def verify(model: Plain, golden: Golden, bits: Mapping[str, int]) -> dict[str, Any]:
    """`bits`: the precision of each matrix that was merged."""
    say("verify", "the merged model", 0, 2)
    merged = model.scores(golden.texts)
    say("verify", "the same, its matrices rounded once more", 1, 2)
    with model.jittered(bits, _SEED):
        jittered = model.scores(golden.texts)
    limit = ROUNDINGS * _rms(jittered, merged) + FLOOR
    difference = _rms(merged, golden.adapter)
    return {
        "event": "verified", "is_within": difference <= limit, "difference": difference, "limit": limit,
        "effect": _rms(golden.adapter, golden.base), "num_tokens": len(merged),
    }  # fmt: skip


def precision(merged: Path, tensors: Sequence[str]) -> dict[str, int]:
    """Bits of each one's significand, by name. Raises ModelUnusable."""
    stored = stored_tensors(weight_files(merged))
    return {name: _BITS[stored[name].dtype] for name in tensors}


def _rms(left: Sequence[float], right: Sequence[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(left, right, strict=True)) / len(left))


def load(merged: Path, device: str | None) -> Plain:
    """Raises BackendError."""
    try:
        from finetune.reference import Plain
    except ImportError as exc:
        raise EngineUnavailable(
            f"to verify it needs torch and transformers: {exc}: run `forgegate install trainer`"
        ) from exc
    try:
        return Plain(merged, device)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as exc:
        raise ModelUnusable(f"transformers cannot load the merged model: {exc}") from exc


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.export.verify", description="Hold a merged model against base and adapter."
    )
    parser.add_argument("--merged", type=Path, required=True, help="its folder")
    parser.add_argument("--references", type=Path, required=True, help="folder of the exported adapter")
    parser.add_argument("--tensors", type=Path, required=True, help="JSON list of the tensors that were merged")
    parser.add_argument("--device", help="as torch names it; default: the first card, else the CPU")
    args = parser.parse_args(argv)
    try:
        golden = read_golden(args.references / REFERENCE)
        bits = precision(args.merged, json.loads(args.tensors.read_text()))
        print(json.dumps(verify(load(args.merged, args.device), golden, bits)), flush=True)
    except BackendError as exc:
        event = "refused" if exc.exit_code == 2 else "failed"
        print(json.dumps({"event": event, "message": str(exc)}), flush=True)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
