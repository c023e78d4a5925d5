"""The words by which starts are understood are those of the installed vLLM: after an upgrade this says which ones changed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.vllm_environment import MISSING, vllm_python

JOINED = re.compile(r'"\s*\n\s*[rf]?"')
"""Between two parts of a string that is written over several lines."""
FRAGMENTS = (
    # causes
    "invalid tool call parser: ", "Reasoning parser ", " not found. Available parsers: ", "enable-auto-tool-choice requires ",
    "appears path-like, but doesn't exist", "Invalid repository ID or local directory specified:", "Cannot find any model weights with `",
    "consider setting `trust_remote_code=True`", " are not supported for now. ", "was supported in vLLM until v",
    "failed to be inspected", "weights were not initialized from checkpoint", "Attempted to load weight (",
    "User-specified max_model_len (", ") is greater than the derived max_model_len (", "Unknown quantization method: ",
    "Quantization method specified in the model config (", "Cannot find the config file for ",
    "quantization is currently not supported in ",
    "is not supported for the current GPU. Minimum capability: ", "Quantization scheme is not supported for the current GPU. ",
    "Failed to find a kernel that can implement the ", "is not supported for quantization method ",
    "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your ", "leep mode is not supported on current platform",
    "Total number of attention heads (", " must be divisible by tensor parallel size (",
    "Pipeline parallelism is not supported for this model",
    "does not support LoRA yet", "is greater than max_lora_rank", "max_cpu_loras (",
    "arget and draft model should have the same vocabulary size",
    "No valid attention backend found for ", "World size (", "Failed to infer device type", "Failed core proc(s): ",
    # memory
    "Free memory on device ", "GiB) on startup is less than desired GPU memory utilization (",
    "To serve at least one request with the model's max seq",
    "cache is needed, which is larger than the available KV cache memory (", "the estimated maximum model length is ",
    "No available memory for the cache blocks", "Error in memory profiling. Initial free memory ",
    "on kv cache allocation is less than requested memory for kv (", "is less than desired CPU memory utilization (",
    "Engine core initialization failed", "WorkerProc initialization failed",
    # progress
    "Capturing CUDA graphs", "checkpoint shards", "Multi-thread loading shards", "JIT kernel warmup", "Compiling CuTeDSL kernels",
    "DeepGEMM warmup",
    "Resolved architecture: ", "Initializing a V1 LLM engine", "Starting to load model ", "Loading drafter model",
    "Directly load AOT compilation", "for vLLM's torch.compile", "Dynamo bytecode transform time", "Initial profiling/warmup run took",
    "Available KV cache memory", "GPU KV cache size", "GiB for KV cache on node", "Graph capturing finished", "Supported tasks: ",
    "Starting vLLM server",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_installed_vllm_says_them() -> None:
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    where = "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"
    done = subprocess.run([python, "-I", "-c", where], capture_output=True, text=True, check=True)
    assert missing(Path(done.stdout.strip())) == []


def missing(package: Path) -> list[str]:
    left = set(FRAGMENTS)
    for path in sorted(package.rglob("*.py")):
        text = JOINED.sub("", path.read_text(errors="replace"))
        left -= {fragment for fragment in left if fragment in text}
    return sorted(left)
