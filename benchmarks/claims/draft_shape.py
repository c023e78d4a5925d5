"""The shape of a draft model of 1B parameters for a model folder of 8B: `python -m benchmarks.claims.draft_shape MODEL OUT`.

Sizes of Llama 3.2 1B, and the tokenizer of the model that it drafts for. Weights come from whoever writes them for the model, too: with
given acceptances (section synthetic) only their number matters.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZES = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 64, "tie_word_embeddings": True, "pard_token": 0,
}  # fmt: skip


def of(config: dict[str, Any]) -> dict[str, Any]:
    """The draft's config.json, from the model's."""
    return config | SIZES


def write(model: Path, out: Path) -> None:
    """Copy the folder's small files, but for weights, and change its sizes."""
    out.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        if path.is_file() and ".safetensors" not in path.name:
            shutil.copy(path, out / path.name)
    config = json.loads((model / "config.json").read_text("utf-8"))
    (out / "config.json").write_text(json.dumps(of(config), indent=1), "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims.draft_shape", description=__doc__)
    parser.add_argument("model", type=Path, help="folder with config.json and tokenizer.json")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args(argv)
    write(options.model, options.out)
    print(f"{options.out}: the shape of a draft of 1B parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
