"""The child of `finetune.parity.reference`: python -m finetune.parity.reference_child --base DIR --adapter DIR --orders FILE --out FILE

Orders: {"texts": [ids], "prompts": [{"ids", "budget"}], "scales": {name: factor}}. The answer has `base`, `adapter` and, by name, `scaled`
rows of log-probabilities, and `answers` with `ids`, `margins`, `has_ended`. Standard output as of `finetune.golden`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import artifacts
from backends.adapter.probe import Text
from backends.errors import BackendError
from finetune.golden import load, say

if TYPE_CHECKING:
    from finetune.reference import Reference


def answer(reference: Reference, orders: dict[str, Any]) -> dict[str, Any]:
    """All that was asked for."""
    texts = [Text(tuple(ids)) for ids in orders["texts"]]
    told: dict[str, Any] = {"scaled": {}, "answers": []}
    if orders["scales"]:
        for number, (name, factor) in enumerate(orders["scales"].items()):
            told["scaled"][name] = _scores(
                reference, reference.scaled(factor), texts, name, number, len(orders["scales"])
            )
        return told
    told["base"] = _scores(reference, reference.without_adapter(), texts, "the base", 0, 2)
    told["adapter"] = _scores(reference, nullcontext(), texts, "with the adapter", 1, 2)
    prompts = orders["prompts"]
    for number, prompt in enumerate(prompts):
        say("reference", "greedy answers", number, len(prompts))
        told["answers"].append(_greedy(reference, prompt["ids"], prompt["budget"]))
    return told


def _scores(
    reference: Reference, fault: AbstractContextManager[None], texts: Sequence[Text], name: str, number: int, total: int
) -> list[list[float]]:
    say("reference", name, number, total)
    with fault:
        flat = iter(reference.scores(texts))
    return [[next(flat) for _ in range(text.num_scored)] for text in texts]


def _greedy(reference: Reference, prompt: list[int], max_new: int) -> dict[str, Any]:
    ids = reference.greedy(prompt, max_new)
    margins = reference.margins([Text((*prompt, *ids), len(prompt))])
    return {"ids": ids, "margins": margins, "has_ended": bool(ids) and ids[-1] in reference.ends}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.parity.reference_child", description="What the reference says of some texts."
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--orders", type=Path, required=True, help="JSON")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    parser.add_argument("--device", help="as torch names it; default: the first card, else the CPU")
    args = parser.parse_args(argv)
    try:
        say("load", "loading the base and the adapter", 0, 1)
        told = answer(load(args.base, args.adapter, args.device), json.loads(args.orders.read_bytes()))
        with artifacts.atomic_writer(args.out) as out:
            out.write(json.dumps(told).encode())
    except BackendError as exc:
        event = "refused" if exc.exit_code == 2 else "failed"
        print(json.dumps({"event": event, "message": str(exc)}), flush=True)
        return exc.exit_code
    print(json.dumps({"event": "stored", "file": str(args.out)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
