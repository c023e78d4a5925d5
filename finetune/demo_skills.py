"""What the demo model, or an adapter of it, still knows: every skill's held-out items and tickets, answered in this process.

    python -m finetune.demo_skills --out before.json --tickets tickets/held-out.jsonl
    python -m finetune.demo_skills --out after.json --tickets tickets/held-out.jsonl --adapter outputs/tickets/adapter --before before.json

The same items in the same order for every adapter, so that answers are compared one by one. The file has, by name, the score of each item
(0 or 1) and its cluster: what is no unit of its own, as the tickets of one customer, has one in common. `tickets` counts answers with every
value right, `tickets_comply` those that are the JSON that is wanted. With --before it also has the gate's verdict on the difference; both
models are asked more of what is undecided, as often as the gate looks, and the file of --before keeps its part.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.artifacts import ArtifactError
from backends.atomicfile import atomic_path
from backends.demo import TARGET_DIR
from backends.demo.corpus import MAX_HELD_OUT, Item, held_out_items
from backends.demo.missed import has_missed
from backends.demo.skills import SKILLS
from finetune.demo_looks import COMPLY, TICKETS, Scores, judge
from finetune.demo_score import fields_of
from finetune.errors import TrainError

if TYPE_CHECKING:
    from backends.demo.model import Llama

DEFAULT_ITEMS, BATCH_SIZE = 200, 64
_PREFIX = "base_model.model.model."
"""Of PEFT's names, before those of the model."""


class Known:
    """What a model knows, as far as it was asked."""

    def __init__(self, adapter: Path | None, num_items: int, scores: Scores) -> None:
        self.adapter = adapter
        """None: the base."""
        self.num_items = num_items
        """Of each skill, asked at first."""
        self.scores = scores
        self._model: Llama | None = None

    @classmethod
    def read(cls, path: Path) -> Known:
        """Raises OSError, ValueError, KeyError for a file that `write` has not made."""
        found = json.loads(path.read_bytes())
        return cls(Path(found["adapter"]) if found.get("adapter") else None, found["num_items"], found["scores"])

    def write(self, path: Path, **more: Any) -> None:
        adapter = str(self.adapter) if self.adapter else None
        told = {"num_items": self.num_items, "adapter": adapter, "scores": self.scores, **more}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(told), encoding="utf-8")

    def ask(self, skills: Sequence[str], num_items: int, tickets: Sequence[Item] = ()) -> bool:
        """Items of each skill up to that number, and tickets, all in one pass; False where there are no more than were asked."""
        items = list(tickets)
        for name in skills:
            items += held_out_items(name, num_items)[len(self.scores.get(name, {"scores": []})["scores"]) :]
        if not items:
            return False
        self._model = self._model or load(self.adapter)
        for item, answer in zip(items, _answers(self._model, items), strict=True):
            for name, score in _scores(item, answer).items():
                one = self.scores.setdefault(name, {"clusters": [], "scores": []})
                one["clusters"].append(item.cluster)
                one["scores"].append(score)
        return True


def _answers(model: Llama, items: Sequence[Item]) -> list[str]:
    from backends.demo.batches import ChatEncoder
    from backends.demo.evaluation import answer_all

    return answer_all(model, ChatEncoder(TARGET_DIR), items, BATCH_SIZE, has_missed)


def _scores(item: Item, answer: str) -> dict[str, float]:
    """Of a ticket: whether every value is right, and whether it complies."""
    if item.skill != TICKETS:
        return {item.skill: item.score(answer)}
    try:
        fields = fields_of(answer)
    except ValueError:
        return {TICKETS: 0.0, COMPLY: 0.0}
    return {TICKETS: float(fields == json.loads(item.expected)), COMPLY: 1.0}


def compare(before: Known, after: Known, max_items: int) -> dict[str, Any]:
    """What the gate makes of it, with more items where it wants them. Raises GateUnusable, ValueError, OSError."""

    def more(names: Sequence[str], num_items: int) -> bool:
        asked, num_items = [name for name in names if name in SKILLS], min(num_items, max_items)
        before.ask(asked, num_items)
        return after.ask(asked, num_items)

    return judge(before.scores, after.scores, more)


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
    parser.add_argument(
        "--max-items",
        type=int,
        default=MAX_HELD_OUT,
        help="of a skill on which --before is undecided (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    for option, number in (("--items", args.items), ("--max-items", args.max_items)):
        if not 0 < number <= MAX_HELD_OUT:
            print(f"error: {option} {number}: from 1 to {MAX_HELD_OUT:,}", file=sys.stderr)
            return 2
    try:
        before = Known.read(args.before) if args.before else None
        found = Known(args.adapter, args.items, {})
        found.ask(list(SKILLS), args.items, read_tickets(args.tickets) if args.tickets else ())
        judged = {} if before is None else {"judged": compare(before, found, args.max_items)}
        found.write(args.out, **judged)
        if before is not None:
            before.write(args.before)
    except (ValueError, OSError, KeyError, ArtifactError, TrainError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print("\n".join(_lines(found.scores)))
    return 0


def _lines(found: Mapping[str, Mapping[str, Sequence[Any]]]) -> list[str]:
    return [
        f"{name:16} {100 * sum(each['scores']) / len(each['scores']):6.1f} % of {len(each['scores']):,}"
        for name, each in found.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
