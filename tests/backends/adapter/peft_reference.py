"""Logits of transformers + PEFT on the demo model, in float32: what every other form of an adapter is held against."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from backends.demo import TARGET_DIR

TOKENS = [1, 300, 300, 1000, 17, 2222, 4095, 42, 600, 601, 602, 1000, 1001, 3000, 7, 9, 259]
Logits = np.ndarray[Any, np.dtype[np.float32]]


@cache
def base_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(TARGET_DIR, dtype=torch.float32).eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """On so small a model threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def peft_logits(adapter: Path | None) -> Logits:
    """[tokens, vocabulary]; of the base alone without an adapter."""
    import torch

    model = base_model()
    if adapter is not None:
        from peft import PeftModel

        with one_thread():
            model = PeftModel.from_pretrained(copy.deepcopy(model), adapter).eval()
    with torch.no_grad(), one_thread():
        return np.asarray(model(torch.tensor([TOKENS])).logits[0].numpy(), np.float32)
