"""Write a model folder with seeded random weights: `python -m backends.demo.random_weights OUT --shape target|draft|tiny`.

The weights have the scale of a trained model (unit variance kept through each projection, embeddings large enough that greedy choices
have a margin), so that an engine built on them meets realistic logits. Numpy only.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from backends.demo import TARGET_DIR
from backends.demo.folders import write_model
from backends.demo.shapes import IM_END_ID, SHAPES, Shape

EMBEDDING_STD = 0.1


def random_weights(shape: Shape, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Float32 weights by Hugging Face's names, the same for the same seed."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, dims in shape.tensor_shapes().items():
        if len(dims) == 1:
            weights[name] = (1.0 + 0.1 * rng.standard_normal(dims)).astype(np.float32)
        else:
            std = EMBEDDING_STD if name == "model.embed_tokens.weight" else dims[1] ** -0.5
            weights[name] = (std * rng.standard_normal(dims)).astype(np.float32)
    # A zero row: the end of the answer never wins a greedy choice, so every server under test writes as many tokens as asked.
    weights["model.embed_tokens.weight"][IM_END_ID] = 0.0
    return weights


def write_random_model(out: Path, shape: Shape, seed: int = 0, tokenizer_dir: Path = TARGET_DIR) -> None:
    """Write a random model folder; errors as in `write_model`."""
    write_model(out, shape, random_weights(shape, seed), tokenizer_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, default=TARGET_DIR, help="folder to copy the tokenizer from")
    args = parser.parse_args()
    write_random_model(args.out, SHAPES[args.shape], args.seed, args.tokenizer)


if __name__ == "__main__":
    main()
