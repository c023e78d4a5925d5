"""What vLLM gets wrong by itself, put right in each of its processes.

entry point `vllm.general_plugins`, with this file in a folder of PYTHONPATH under the name `forgegate_vllm_mends`

On a CPU, beside speculation, 0.26 and 0.32 spread temperature, top_k and top_p over the drafted tokens into a copy that nobody reads
(vllm-project/vllm#55005): what is drawn, is drawn by memory that was never written. Greedy answers do not ask for them. And a top_k
without a top_p ends the engine at the first step for which nothing was drafted: the largest of no values is asked for.
vLLM calls plugins before it takes its kernels from where they are defined, but not in every version and process, so that both are
seen to. A vLLM that does it right is left alone.
"""

import logging
import sys
from importlib import import_module
from typing import Any

DEFINED, USED = "vllm.utils.cpu_triton_utils", "vllm.v1.sample.rejection_sampler"
FUNCTION, KERNEL = "_expand_kernel_impl", "expand_kernel"
SAMPLING, TOP_K = "vllm.v1.sample.ops.topk_topp_sampler", "apply_top_k_only"
logger = logging.getLogger("vllm.forgegate")
"""Below vLLM's own, which has the handlers."""


def mend() -> None:
    """Never raises: an engine without it still answers, and right where answers are greedy."""
    try:
        if import_module("vllm.platforms").current_platform.is_cpu() and any([mend_expand(), mend_top_k()]):
            logger.info("forgegate mended sampling beside speculation on the CPU (vllm-project/vllm#55005)")
    except Exception as exc:  # noqa: BLE001 - named boundary: logged, and the engine starts
        logger.warning(
            "forgegate could not look after sampling beside speculation on the CPU (vllm-project/vllm#55005), "
            "where a temperature above 0 may give wrong text, or end the engine: %s: %s",
            type(exc).__name__,
            exc,
        )


def mend_expand() -> bool:
    """Whether it was necessary."""
    import_module("vllm._custom_ops")  # loads the operators that are tried
    kernels = import_module(DEFINED)
    found = getattr(kernels, FUNCTION)
    if is_right(found):
        return False
    setattr(kernels, FUNCTION, expand)
    for module in (kernels, sys.modules.get(USED)):
        wrapper = getattr(module, KERNEL, None)
        for name, value in list(getattr(wrapper, "__dict__", {}).items()):
            if value is found:
                setattr(wrapper, name, expand)
    return True


def mend_top_k() -> bool:
    """Whether it was necessary."""
    torch, sampling = import_module("torch"), import_module(SAMPLING)
    found = getattr(sampling, TOP_K)
    try:
        found(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int32))
    except (RuntimeError, IndexError):
        setattr(sampling, TOP_K, lambda logits, k: found(logits, k) if k.numel() else logits)
        return True
    return False


def is_right(function: Any) -> bool:
    torch = import_module("torch")
    output = torch.full((3,), -1.0)
    function(output, torch.tensor([0.5, 0.0]), torch.tensor([2, 3], dtype=torch.int32), 0, 1, MAX_NUM_TOKENS=2)
    return bool(output.tolist() == [0.5, 0.5, 1.0])


def expand(
    output: Any, input_val: Any, cu_num_tokens: Any, replace_from: Any, replace_to: Any, MAX_NUM_TOKENS: Any = None
) -> None:
    """Each request's value to each of its tokens, `replace_to` where it is `replace_from`. Named as what it stands for."""
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    values = input_val.masked_fill(input_val == replace_from, replace_to).repeat_interleave(counts)
    output[: values.shape[0]] = values
