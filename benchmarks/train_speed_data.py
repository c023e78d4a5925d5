"""A script of its own: training rows whose lengths are lognormal in a model's own tokens.

python -m benchmarks.train_speed_data --model DIR --out FILE.jsonl --rows 600 --mean 550 --spread 0.7 --max 2048 --seed 1

Each row is a question and an answer of random words, ChatML messages, rendered by the model's chat template as training renders them. One
JSON line says what came out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import train_speed_lengths

NUM_WORDS = 2000
QUESTION_SHARE = 0.25
"""Of a row's words."""
_SYLLABLES = tuple(f"{consonant}{vowel}" for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def words(seed: int) -> list[str]:
    """Made up: two to four syllables each."""
    random = Random(seed)
    return ["".join(random.choices(_SYLLABLES, k=random.randint(2, 4))) for _ in range(NUM_WORDS)]


def row(tokens: int, cost: dict[str, int], frame: int, random: Random) -> dict[str, Any]:
    """As many tokens as near as words come to it. `cost`: tokens of each word; `frame`: tokens of a row without words."""
    left, chosen = tokens - frame, list[str]()
    pool, cheapest = list(cost), min(cost, key=cost.__getitem__)
    while left >= cost[cheapest]:
        word = random.choice(pool)
        word = word if cost[word] <= left else cheapest
        chosen.append(word)
        left -= cost[word]
    cut = max(1, int(len(chosen) * QUESTION_SHARE))
    return messages(" ".join(chosen[:cut]), " ".join(chosen[cut:]))


def messages(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parse(argv)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(options.model, local_files_only=True)

    def length(made: dict[str, Any]) -> int:
        return len(tokenizer.apply_chat_template(made["messages"], return_dict=True)["input_ids"])

    cost = {word: len(tokenizer.encode(f" {word}", add_special_tokens=False)) for word in words(options.seed)}
    frame, random = length(messages("", "")), Random(options.seed)
    # The template may split words of its own frame otherwise than alone.
    high, low = options.max - 8, frame + 2 * max(cost.values())
    wanted = train_speed_lengths.draw(options.rows, options.mean, options.spread, low, high, options.seed)
    rows = [row(tokens, cost, frame, random) for tokens in wanted]
    options.out.write_text("".join(json.dumps(made) + "\n" for made in rows), "utf-8")
    print(json.dumps(train_speed_lengths.facts([length(made) for made in rows])))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speed_data", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True)
    add("--out", type=Path, required=True)
    add("--rows", type=int, default=600)
    add("--mean", type=float, default=550.0)
    add("--spread", type=float, default=0.7)
    add("--max", type=int, default=2048)
    add("--seed", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
