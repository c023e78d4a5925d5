"""Gives a model shape's small tokenizer a text for every id: `python -m benchmarks.full_vocabulary SHAPE OUT`.

A model of random weights draws ids from its whole vocabulary. Where its tokenizer knows only the first few thousand, most of them
are no text at all, and nobody could say when an answer's first text came. Prompts are tokenised as before: the new entries are
reached by no merge.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SPACE = "\u0120"
"""How byte-level BPE writes a space."""


def filled(tokenizer: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """The tokenizer.json with a word of its own for each id that has none."""
    model = tokenizer["model"]
    taken = {*model["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", []))}
    words = {f"{_SPACE}word{number}": number for number in range(vocab_size) if number not in taken}
    return tokenizer | {"model": model | {"vocab": model["vocab"] | words}}


def write(shape: Path, out: Path) -> int:
    """Copy the shape's files, but for weights; the number of ids that have a text now."""
    out.mkdir(parents=True, exist_ok=True)
    for path in shape.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, out / path.name)
    size = int(json.loads((shape / "config.json").read_text("utf-8"))["vocab_size"])
    tokenizer = filled(json.loads((shape / "tokenizer.json").read_text("utf-8")), size)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    return size


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_vocabulary", description=__doc__)
    parser.add_argument("shape", type=Path, help="folder with config.json and tokenizer.json")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args(argv)
    print(f"{write(options.shape, options.out):,} ids have a text in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
