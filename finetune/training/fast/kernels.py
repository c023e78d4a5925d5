"""Norms, rotary embeddings and gated activations by Liger's kernels, one launch each where torch takes five to ten.

Hsu et al. 2024, Liger Kernel, sections 3.1 and 3.2; what they compute is what the model's own code computes, up to the rounding of its
precision.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

KEY = "use_liger_kernel"
"""What a recipe calls it."""
KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""Types of models whose parts are patched in place, and nothing else of theirs."""
_PARTS = {"rope": True, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False}
"""The loss is our own (losses.chunked_loss)."""


def obstacle(config: Any, device: torch.device) -> str:
    """Why the kernels cannot be used, in words; empty: they can. `config` is the model's."""
    if device.type != "cuda":
        return "it needs a GPU"
    if config.model_type not in KNOWN:
        return f"it is for {', '.join(KNOWN)}, and the model is {config.model_type}"
    missing = [name for name in ("liger_kernel", "triton") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} cannot be imported here" if missing else ""


def patch(model: Any) -> None:
    """Before the model gets its adapter."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    MODEL_TYPE_TO_APPLY_LIGER_FN[model.config.model_type](model=model, **_PARTS)
