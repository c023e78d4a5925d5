"""Prefill by kind of attention and length of the prompt, a script of its own: `python attention_speed.py MODEL --kinds eager,sdpa`.

All kinds are loaded side by side. It needs torch and transformers, nothing of forgegate's.

One JSON object a line in: {"do": "prefill", "kind": "sdpa", "length": 4096}; one a line out: {"seconds"}, or {"out_of_memory": true}.
{"do": "kinds"} answers which of the kinds can be loaded here. The end of the input ends it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

FIRST_ID, STEP = 261, 37
"""Ids of a prompt: above those that vocabularies keep for control tokens."""


def prompt(length: int, vocab_size: int) -> list[int]:
    """Ids, all of the vocabulary in turn."""
    return [FIRST_ID + place * STEP % (vocab_size - FIRST_ID) for place in range(length)]


def prefill(model: Any, length: int) -> dict[str, Any]:
    """One prompt, up to the next token's scores."""
    import torch

    ids = torch.tensor([prompt(length, model.config.vocab_size)], device=model.device)
    began_s = time.perf_counter()
    try:
        with torch.inference_mode():
            model(input_ids=ids, **_last_row(model)).logits[0, -1].argmax().item()  # waits for the device
    except (torch.OutOfMemoryError, RuntimeError) as exc:
        if "memory" not in str(exc):
            raise
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        return {"out_of_memory": True}
    return {"seconds": time.perf_counter() - began_s}


def _last_row(model: Any) -> dict[str, Any]:
    """Scores of the last token only, as a server computes them; no cache is kept."""
    found: dict[str, Any] = {"use_cache": False}
    return found | ({"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {})


def load(path: str, kinds: Sequence[str], device: str, dtype: str) -> dict[str, Any]:
    """Kind -> model, of those that can be loaded here."""
    import torch
    from transformers import AutoModelForCausalLM

    found = {}
    for kind in kinds:
        try:
            found[kind] = (
                AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation=kind)
                .to(device)
                .eval()
            )
        except (ImportError, ValueError) as exc:
            sys.stderr.write(f"{kind}: {exc}\n")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; 3 where torch, transformers or the model are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of safetensors")
    parser.add_argument("--kinds", default="eager,sdpa,flash_attention_2", help="transformers' attn_implementation")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", default="float32", help="of weights and activations (default float32)")
    options = parser.parse_args(argv)
    try:
        models = load(options.model, options.kinds.split(","), options.device, options.dtype)
    except (ImportError, OSError) as exc:
        print(json.dumps({"error": f"{type(exc).__name__}: {exc}"}), flush=True)
        return 3
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        answer = {"kinds": list(models)} if task["do"] == "kinds" else prefill(models[task["kind"]], task["length"])
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
