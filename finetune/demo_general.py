"""Chats of what the demo model knows already, as general rows against forgetting.

    python -m finetune.demo_general --out general.jsonl [--rows 1000] [--exchanges 1] [--seed 1]

Conversations of the corpus that it was made of, from the side that is trained on: none asks what its skills are measured by. Tools stand
in the system prompt, in the words in which the model's chat template puts them. The same rows and seed give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from backends.demo.chat import TOOLS_HEAD, TOOLS_TAIL, to_json
from backends.demo.corpus import Item, training_items

DEFAULT_ROWS, DEFAULT_SEED = 1000, 1
MAX_ROWS = 1_000_000


def chats(
    num_rows: int = DEFAULT_ROWS, seed: int = DEFAULT_SEED, num_exchanges: int = 1
) -> Iterator[Mapping[str, Any]]:
    """Each with its `messages`, of `num_exchanges` at least: the longer they are, the more of what is known stands in a row."""
    long = (item for item in training_items(seed, sys.maxsize) if _count(item) >= num_exchanges)
    return ({"messages": messages_of(item)} for item in islice(long, num_rows))


def _count(item: Item) -> int:
    return sum(message["role"] == "assistant" for message in item.conversation())


def messages_of(item: Item) -> list[Mapping[str, Any]]:
    """Its conversation; a chat template makes the same text of them that it makes of the item and its tools."""
    turns = list(item.conversation())
    if not item.tools:
        return turns
    told = [turns.pop(0)["content"], ""] if turns[0]["role"] == "system" else []
    lines = (*told, TOOLS_HEAD, *(to_json(tool.get("function", tool)) for tool in item.tools))
    return [{"role": "system", "content": "\n".join(lines) + TOOLS_TAIL}, *turns]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.demo_general", description="Write chats of what the demo model knows."
    )
    parser.add_argument("--out", type=Path, required=True, help="file of them, one JSON object a line")
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help="how many (default: %(default)s)")
    parser.add_argument(
        "--exchanges", type=int, choices=range(1, 5), default=1, help="of each at least (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="another one gives other chats (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not 0 < args.rows <= MAX_ROWS:
        print(f"error: --rows {args.rows}: from 1 to {MAX_ROWS:,}", file=sys.stderr)
        return 2
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(
                json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats(args.rows, args.seed, args.exchanges)
            )
    except OSError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.rows:,} chats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
