"""Chats of what the demo model knows already, as general rows against forgetting.

    python -m finetune.demo_general --out general.jsonl [--rows 1000] [--exchanges 1] [--even] [--seed 1]

Conversations of the corpus that it was made of, from the side that is trained on: none asks what its skills are measured by. Tools stand
in the system prompt, in the words in which the model's chat template puts them. The same rows and seed give the same bytes everywhere.

As the corpus has them, skills come by their weight, and chats that obey a system prompt are rare where more than one exchange is wanted:
most of those have one. `--even` draws as many of each skill, and takes them as short as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from backends.demo.chat import TOOLS_HEAD, TOOLS_TAIL, to_json
from backends.demo.corpus import Item, training_items
from backends.demo.skills import SKILLS

DEFAULT_ROWS, DEFAULT_SEED = 1000, 1
MAX_ROWS = 1_000_000


def chats(
    num_rows: int = DEFAULT_ROWS, seed: int = DEFAULT_SEED, num_exchanges: int = 1, is_even: bool = False
) -> Iterator[Mapping[str, Any]]:
    """Each with its `messages`, of `num_exchanges` at least: the longer they are, the more of what is known stands in a row.

    `is_even`: one chat of each skill after the other; those that begin with a system prompt may be shorter.
    """
    return ({"messages": messages_of(item)} for item in islice(items(seed, num_exchanges, is_even), num_rows))


def items(seed: int, num_exchanges: int, is_even: bool) -> Iterator[Item]:
    """What `chats` are made of, without end."""
    found = training_items(seed, sys.maxsize)
    return _evenly(found, num_exchanges) if is_even else (item for item in found if _count(item) >= num_exchanges)


def _evenly(found: Iterator[Item], num_exchanges: int) -> Iterator[Item]:
    """By skill in turn, each in the order in which its items come."""
    waiting: dict[str, deque[Item]] = {name: deque() for name in SKILLS}
    for number in count():
        wanted = waiting[tuple(SKILLS)[number % len(SKILLS)]]
        while not wanted:
            item = next(found)
            if _count(item) >= num_exchanges or item.messages[0]["role"] == "system":
                waiting[item.skill].append(item)
        yield wanted.popleft()


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
    parser.add_argument("--even", action="store_true", help="as many chats of each skill, system prompts among them")
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
            made = chats(args.rows, args.seed, args.exchanges, args.even)
            file.writelines(json.dumps(chat, ensure_ascii=False) + "\n" for chat in made)
    except OSError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.rows:,} chats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
