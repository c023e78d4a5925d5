"""What the demo model, or an adapter of it, still knows: every skill's held-out items and tickets, answered in this process.

    python -m finetune.demo_skills --out before.json --tickets tickets/held-out.jsonl
    python -m finetune.demo_skills --out after.json --tickets tickets/held-out.jsonl --adapter outputs/tickets/adapter --before before.json

The same items in the same order for every adapter, so that answers are compared one by one. The file has, by name, the score of each item
(0 or 1) and its cluster: what is no unit of its own, as the tickets of one customer, has one in common. `tickets` counts answers with every
value right, `tickets_comply` those that are the JSON that is wanted. With --before it also has what the gate makes of the difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.artifacts import ArtifactError
from backends.demo import TARGET_DIR
from backends.demo.corpus import MAX_HELD_OUT, Item, held_out_items
from backends.demo.skills import SKILLS
from finetune.demo_score import fields_of
from finetune.errors import TrainError

if TYPE_CHECKING:
    from backends.demo.model import Llama

TICKETS, COMPLY = "tickets", "tickets_comply"
DEFAULT_ITEMS, BATCH_SIZE = 200, 128
_PREFIX = "base_model.model.model."
"""Of PEFT's names, before those of the model."""
Scores = dict[str, dict[str, list[Any]]]


def measure(model: Llama, tickets: Sequence[Item], num_items: int) -> Scores:
    """By skill, and of the tickets: `clusters` and `scores` of the items."""
    from backends.demo.batches import ChatEncoder
    from backends.demo.evaluation import answer_all

    found: Scores = {}
    encoder = ChatEncoder(TARGET_DIR)
    for name, skill in SKILLS.items():
        items = held_out_items(name, num_items)
        answers = answer_all(model, encoder, items, BATCH_SIZE)
        scores = [skill.score(item.check, answer) for item, answer in zip(items, answers, strict=True)]
        found[name] = {"clusters": [item.cluster for item in items], "scores": scores}
    if tickets:
        answers = answer_all(model, encoder, tickets, BATCH_SIZE)
        clusters = [item.cluster for item in tickets]
        pairs = [_ticket_scores(item, answer) for item, answer in zip(tickets, answers, strict=True)]
        for place, name in enumerate((TICKETS, COMPLY)):
            found[name] = {"clusters": clusters, "scores": [pair[place] for pair in pairs]}
    return found


def _ticket_scores(item: Item, answer: str) -> tuple[float, float]:
    """Whether every value is right, and whether it complies."""
    try:
        fields = fields_of(answer)
    except ValueError:
        return 0.0, 0.0
    return float(fields == json.loads(item.expected)), 1.0


def judge(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What the gate says at its first look, and each skill's difference in points with its bounds. Raises GateUnusable."""
    from finetune.evaluation.demo import skills
    from finetune.gating.judging import judge_skill, judge_task
    from finetune.gating.limits import Limits
    from finetune.gating.paired import Paired
    from finetune.gating.verdict import Verdict, decide, levels_of

    is_closed = {task.name: task.is_closed for task in skills()}

    def paired(name: str) -> Paired:
        one, other = before[name], after[name]
        return Paired(
            name, tuple(other["clusters"]), tuple(one["scores"]), tuple(other["scores"]), is_closed.get(name, False)
        )

    task, general, limits = paired(TICKETS), [paired(name) for name in SKILLS], Limits()
    levels, verdict = levels_of(len(general), limits, 0), decide(task, general, "improve", limits, 0)
    judged = [judge_task(task, "improve", limits, levels), *(judge_skill(skill, limits, levels) for skill in general)]
    return {
        "outcome": verdict.outcome if isinstance(verdict, Verdict) else "more items",
        "reasons": list(verdict.reasons) if isinstance(verdict, Verdict) else [],
        "differences": {one.name: asdict(one) for one in judged},
    }  # fmt: skip


def read_tickets(path: Path) -> list[Item]:
    """Each by its customer. Raises ValueError for rows that are no tickets, OSError."""
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            *asked, answer = json.loads(line)["messages"]
            fields = fields_of(answer["content"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number}: no ticket as `python -m finetune.demo_tickets` writes them") from None
        items.append(Item(TICKETS, str(fields["name"]), tuple(asked), answer, ()))
    return items


def load(adapter: Path | None) -> Llama:
    """The demo model in float32, with the adapter's update added. Raises ValueError for an adapter that is none of it, OSError."""
    import torch

    from backends.artifacts import read_tensors
    from backends.demo.model import load_model
    from backends.demo.shapes import SHAPES

    model = load_model(TARGET_DIR, SHAPES["target"])
    if adapter is None:
        return model
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    scale = config["lora_alpha"] / (config["r"] ** (0.5 if config.get("use_rslora") else 1))
    tensors = {
        name: torch.from_numpy(value.to_f32().copy())
        for name, value in read_tensors(adapter / "adapter_model.safetensors").items()
    }
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name in (name for name in tensors if name.endswith(".lora_A.weight")):
            stem = name.removesuffix(".lora_A.weight")
            target = weights.get(stem.removeprefix(_PREFIX) + ".weight")
            if target is None:
                raise ValueError(f"{adapter}: the demo model has no layer {stem}")
            target.add_(tensors[f"{stem}.lora_B.weight"] @ tensors[name], alpha=scale)
    return model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.demo_skills",
        description="Score the demo model's skills, and tickets, with or without an adapter.",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--adapter", type=Path, help="folder as PEFT writes it (default: the base alone)")
    parser.add_argument("--tickets", type=Path, help="held-out.jsonl of `python -m finetune.demo_tickets`")
    parser.add_argument("--before", type=Path, help="what this program has written of what to compare with")
    parser.add_argument("--items", type=int, default=DEFAULT_ITEMS, help="of each skill (default: %(default)s)")
    args = parser.parse_args(argv)
    if not 0 < args.items <= MAX_HELD_OUT:
        print(f"error: --items {args.items}: from 1 to {MAX_HELD_OUT:,}", file=sys.stderr)
        return 2
    try:
        before = json.loads(args.before.read_bytes())["scores"] if args.before else None
        found = measure(load(args.adapter), read_tickets(args.tickets) if args.tickets else (), args.items)
        judged = {} if before is None else {"judged": judge(before, found)}
        args.out.write_text(json.dumps({"num_items": args.items, "scores": found, **judged}), encoding="utf-8")
    except (ValueError, OSError, KeyError, ArtifactError, TrainError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print("\n".join(_lines(found)))
    return 0


def _lines(found: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[str]:
    return [
        f"{name:16} {100 * sum(each['scores']) / len(each['scores']):6.1f} % of {len(each['scores']):,}"
        for name, each in found.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
