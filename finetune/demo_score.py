"""How well a model behind a gateway answers the demo's tickets, without being told what to answer with.

    python -m finetune.demo_score tickets/held-out.jsonl --model tickets

An answer complies where it is one JSON object with the five fields, each once, each of its type, colors and reasons among the known
ones, and nothing around it; it is right where the values are the ticket's too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from finetune.demo_tickets import COLORS, REASONS
from finetune.errors import RecipeUnusable
from finetune.parity.served import NO_LOG
from finetune.running import endpoint

FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and value != "",
    "order": lambda value: type(value) is int,
    "color": lambda value: isinstance(value, str) and value in COLORS,
    "reason": lambda value: isinstance(value, str) and value in REASONS,
    "urgent": lambda value: isinstance(value, bool),
}
"""What each may be."""
MAX_TOKENS = 96
"""Of an answer; a right one has about 40."""
TIMEOUT_S = 120.0
NUM_SHOWN = 3
Question = tuple[str, Mapping[str, Any]]
"""A ticket, and the fields that are to be read from it."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    engine: str = ""
    """That gave it, as the gateway's header says."""


@dataclass(frozen=True, slots=True)
class Score:
    num_answers: int
    num_compliant: int
    num_right: int
    """Compliant, with every value."""
    right_by_field: Mapping[str, int]
    """Of the compliant ones."""
    misses: Sequence[tuple[str, str]]
    """Why an answer is not right, and the answer."""

    @property
    def compliance(self) -> float:
        return self.num_compliant / self.num_answers

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_answers

    def lines(self) -> list[str]:
        right = ", ".join(f"{name} {self.right_by_field.get(name, 0)}" for name in FIELDS)
        return [
            f"{self.num_compliant} of {self.num_answers} answers comply ({self.compliance:.1%}), "
            f"{self.num_right} have every value right ({self.accuracy:.1%}): {right}",
            *(f"  {why}: {text[:160]!r}" for why, text in self.misses[:NUM_SHOWN]),
        ]


def fields_of(answer: str) -> Mapping[str, Any]:
    """What a compliant answer says. Raises ValueError with what is wrong with another."""
    try:
        found = json.loads(answer, object_pairs_hook=_each_once)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if found.keys() != FIELDS.keys():
        raise ValueError(f"other fields ({', '.join(sorted(found.keys() ^ FIELDS.keys()))})")
    if wrong := [name for name, may_be in FIELDS.items() if not may_be(found[name])]:
        raise ValueError(f"{wrong[0]} is {found[wrong[0]]!r}")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field twice")
    return found


def score(expected: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> Score:
    """Of one answer to each ticket."""
    num_compliant = num_right = 0
    by_field: Counter[str] = Counter()
    misses = []
    for fields, answer in zip(expected, answers, strict=True):
        try:
            found = fields_of(answer)
        except ValueError as exc:
            misses.append((str(exc), answer))
            continue
        num_compliant += 1
        by_field.update(name for name in FIELDS if found[name] == fields[name])
        if wrong := [name for name in FIELDS if found[name] != fields[name]]:
            misses.append((f"{wrong[0]} is not {fields[wrong[0]]!r}", answer))
        else:
            num_right += 1
    return Score(len(answers), num_compliant, num_right, by_field, misses)


def questions(path: Path) -> list[Question]:
    """Raises ValueError for what `finetune.demo_tickets` did not write, OSError."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            asked, answered = (turn["content"] for turn in json.loads(line)["messages"])
            found.append((asked, fields_of(answered)))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}:{number}: no ticket as `python -m finetune.demo_tickets` writes them") from None
    if not found:
        raise ValueError(f"{path}: no tickets")
    return found


def ask(client: httpx.Client, model: str, text: str) -> Answer:
    """The greedy answer to a ticket alone. Raises httpx.HTTPError."""
    body = {
        "model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": MAX_TOKENS,
    }  # fmt: skip
    reply = client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    content = reply.json()["choices"][0]["message"]["content"]
    return Answer(content or "", reply.headers.get("x-forgegate-engine", ""))


def ask_all(
    client: httpx.Client, model: str, asked: Sequence[Question], num_at_a_time: int
) -> tuple[list[Answer], Score]:
    """Raises httpx.HTTPError."""
    with ThreadPoolExecutor(num_at_a_time) as pool:
        answers = list(pool.map(lambda question: ask(client, model, question[0]), asked))
    return answers, score([fields for _, fields in asked], [answer.text for answer in answers])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.demo_score", description="Ask a gateway's model the tickets of a file and score it."
    )
    parser.add_argument("file", type=Path, help="held-out.jsonl of `python -m finetune.demo_tickets`")
    parser.add_argument("--model", required=True, help="a model, or an alias of adapters")
    parser.add_argument("--url", default="", help="of an endpoint (default: the gateway that runs on this machine)")
    parser.add_argument("--at-a-time", type=int, default=4, help="requests (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        asked = questions(args.file)
        url, key = endpoint(args.url)
        headers = {NO_LOG: "1", **({"authorization": f"Bearer {key}"} if key else {})}
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S) as client:
            _, found = ask_all(client, args.model, asked, args.at_a_time)
    except (ValueError, OSError, RecipeUnusable, httpx.InvalidURL) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    except httpx.HTTPStatusError as exc:
        print(f"error: {url} answers {exc.response.status_code}: {exc.response.text[:300]}", file=sys.stderr)
        return 3
    except httpx.HTTPError as exc:
        print(f"error: {url} does not answer: {str(exc) or type(exc).__name__}", file=sys.stderr)
        return 3
    print("\n".join(found.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
