"""Which instructions of a CPU vLLM needs for a model: without them it dies at its first request, long after its start. x86-64 only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOUR_BITS = ("awq", "gptq", "auto_awq", "auto_gptq", "awq_marlin", "gptq_marlin")
"""Methods whose weights of 4 bits one kernel computes with (cpu_gemm_wna16), which is built for AVX-512 only."""
_PACKED = "pack-quantized"
"""The same weights as compressed-tensors stores them."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the kernel says of this CPU (`avx2`, ...); empty where it does not say, or the CPU is another kind."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def lacking(flags: frozenset[str], config: Mapping[str, Any], quantization: str) -> str:
    """Why vLLM cannot run the model of this config.json on a CPU with these flags, and what can; empty if it can."""
    if not flags:
        return ""
    if "avx2" not in flags:
        return "this CPU has no AVX2, which vLLM needs; the llama.cpp engine runs without (`engine: llamacpp`)"
    method = _four_bits(config, quantization)
    if method and "avx512f" not in flags:
        return (
            f"this CPU has no AVX-512, without which vLLM cannot run {method} models: take one that is not quantised, or the llama.cpp "
            "engine with a GGUF"
        )
    return ""


def _four_bits(config: Mapping[str, Any], quantization: str) -> str:
    described = config.get("quantization_config")
    described = described if isinstance(described, dict) else {}
    method = quantization or str(described.get("quant_method", ""))
    if method == "compressed-tensors" and described.get("format") == _PACKED:
        return method
    return method if method in _FOUR_BITS else ""
