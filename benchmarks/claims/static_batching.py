"""Static batching by transformers' `generate`, a script of its own: `python static_batching.py MODEL [--device cuda]`.

Batches are padded to their longest prompt and computed until their longest answer has ended; only tokens up to each answer's own
end are counted. It needs torch and transformers, nothing of forgegate's.

One JSON object a line in: {"do": "generate", "batch": 8, "ignore_eos": true, "prompts": [[ids], ...], "lengths": [most tokens, ...]};
one a line out: {"seconds", "useful_tokens", "computed_tokens"}, or {"out_of_memory": true}. The end of the input ends it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

PAD = 0


def num_useful(answer: Sequence[int], most: int, ends: Sequence[int]) -> int:
    """Tokens of an answer as far as its reader wants them: up to its end, that included, and at most `most`."""
    wanted = answer[:most]
    return next((place + 1 for place, token in enumerate(wanted) if token in ends), len(wanted))


def padded(prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and attention mask, filled up on the left: answers continue on the right."""
    longest = max(map(len, prompts))
    ids = [[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return ids, mask


def generate(model: Any, task: dict[str, Any]) -> dict[str, Any]:
    """All prompts, batch after batch, in their order."""
    import torch

    ends = [] if task["ignore_eos"] else _ends(model)
    prompts, lengths, size = task["prompts"], task["lengths"], task["batch"]
    useful = computed = 0
    _wait(model)
    began_s = time.perf_counter()
    try:
        for start in range(0, len(prompts), size):
            rows, wanted = _batch(model, prompts[start : start + size], lengths[start : start + size], ends)
            useful += sum(num_useful(row, most, ends) for row, most in zip(rows, wanted, strict=True))
            computed += sum(map(len, rows))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"out_of_memory": True}
    return {"seconds": time.perf_counter() - began_s, "useful_tokens": useful, "computed_tokens": computed}


def _batch(
    model: Any, prompts: list[list[int]], lengths: list[int], ends: list[int]
) -> tuple[list[list[int]], list[int]]:
    import torch

    ids, mask = (torch.tensor(rows, device=model.device) for rows in padded(prompts))
    longest = max(lengths)
    with torch.inference_mode():
        answers = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=longest, min_new_tokens=None if ends else longest,
            eos_token_id=ends or None, pad_token_id=PAD,
        )  # fmt: skip
    return answers[:, ids.shape[1] :].tolist(), lengths  # tolist waits for the device


def _ends(model: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    return list(found) if isinstance(found, list) else [] if found is None else [found]


def _wait(model: Any) -> None:
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()


def load(path: str, device: str, dtype: str) -> Any:
    """The model, ready to answer."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).to(device).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; 3 where torch, transformers or the model are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of safetensors")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", default="float32", help="of weights and activations (default float32)")
    options = parser.parse_args(argv)
    try:
        model = load(options.model, options.device, options.dtype)
    except (ImportError, OSError, ValueError) as exc:
        print(json.dumps({"error": f"{type(exc).__name__}: {exc}"}), flush=True)
        return 3
    generate(
        model, {"prompts": [[1] * 8], "lengths": [2], "batch": 1, "ignore_eos": True}
    )  # kernels are loaded from now on
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(generate(model, task)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
