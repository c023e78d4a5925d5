"""A script of its own: how fast this machine multiplies matrices of a model's linear layers, of random numbers.

python -m benchmarks.train_speed_gemm SHAPES.json     SHAPES.json: {"tokens": T, "layers": {name: [outputs, inputs]}}

bfloat16 on a GPU, float32 on a CPU. One JSON line: operations per second of all layers together, forward (T x inputs by inputs x outputs)
and backward to the input (T x outputs by outputs x inputs).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM_UP_S, MEASURE_S = 0.2, 0.3
"""Of each layer; clocks rise within the first tenths."""


def main(argv: list[str]) -> int:
    """The exit code."""
    wanted = json.loads(Path(argv[0]).read_text("utf-8"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = {
        name: _layer(int(wanted["tokens"]), outputs, inputs, device)
        for name, (outputs, inputs) in wanted["layers"].items()
    }
    flops = sum(2 * 2 * wanted["tokens"] * outputs * inputs for outputs, inputs in wanted["layers"].values())
    print(json.dumps({
        "flops_per_s": flops / sum(seconds.values()), "tokens": wanted["tokens"], "dtype": _dtype(device),
        "seconds": {name: round(value, 9) for name, value in seconds.items()},
    }))  # fmt: skip
    return 0


def _dtype(device: torch.device) -> str:
    return "bfloat16" if device.type == "cuda" else "float32"


def _layer(tokens: int, outputs: int, inputs: int, device: torch.device) -> float:
    """Seconds of the forward and the backward product, once each."""
    settings: dict[str, Any] = {"device": device, "dtype": getattr(torch, _dtype(device))}
    weight, states = torch.randn(outputs, inputs, **settings), torch.randn(tokens, inputs, **settings)
    gradients = torch.randn(tokens, outputs, **settings)

    def both() -> None:
        states @ weight.t()
        gradients @ weight

    _repeat(both, WARM_UP_S, device)
    return _repeat(both, MEASURE_S, device)


def _repeat(run: Callable[[], None], seconds: float, device: torch.device) -> float:
    """At least as long as this; the mean."""
    count, start_s = 0, time.perf_counter()
    while (spent := time.perf_counter() - start_s) < seconds:
        for _ in range(4):
            run()
        count += 4
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return spent / count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
