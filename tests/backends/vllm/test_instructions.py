from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from backends.base import Places, PoolSpec
from backends.errors import ModelUnusable
from backends.plan import GIB
from backends.vllm.instructions import cpu_flags, lacking
from backends.vllm.launch import Machine, Vllm
from backends.vllm.source import DEMO_DIR
from tests.backends.vllm.recorded import installed

OLD, HASWELL = frozenset({"sse4_2", "avx"}), frozenset({"sse4_2", "avx", "avx2", "fma"})
SKYLAKE = HASWELL | {"avx512f", "avx512bw"}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4}}
PACKED = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}
INT8 = {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}}


@pytest.mark.parametrize(
    ("flags", "config", "quantization", "words"),
    [
        (SKYLAKE, AWQ, "", ""),
        (HASWELL, AWQ, "", "no AVX-512, without which vLLM cannot run awq models"),
        (HASWELL, {}, "gptq", "cannot run gptq models"),
        (HASWELL, PACKED, "", "cannot run compressed-tensors models"),
        (HASWELL, INT8, "", ""),
        (HASWELL, {"quantization_config": "?"}, "", ""),
        (HASWELL, {}, "", ""),
        (OLD, {}, "", "no AVX2, which vLLM needs"),
        (frozenset(), AWQ, "", ""),
    ],
)
def test_what_a_cpu_lacks(flags: frozenset[str], config: dict[str, Any], quantization: str, words: str) -> None:
    found = lacking(flags, config, quantization)
    assert words in found
    assert bool(found) == bool(words)


def test_flags_of_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor\t: 0\nmodel name\t: x\nflags\t\t: fpu sse4_2 avx2\nbugs\t\t: y\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    assert cpu_flags(path) == {"fpu", "sse4_2", "avx2"}
    path.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_flags(path) == frozenset()
    assert cpu_flags(tmp_path / "absent") == frozenset()


def test_a_model_that_this_cpu_cannot_run_is_refused_before_the_start(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_DIR, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **AWQ}))
    spec = PoolSpec("vllm", "demo", model=str(model), python="/env/bin/python")
    places = Places(tmp_path / "models", tmp_path / "envs")

    def backend(flags: frozenset[str]) -> Vllm:
        machine = Machine(lambda *_: installed("0.32", "cpu"), lambda: 64 * GIB, tuple, lambda: flags)
        return Vllm(spec, places, machine)

    assert backend(SKYLAKE).check().startswith("vLLM 0.32")
    with pytest.raises(ModelUnusable, match=f"{model}: this CPU has no AVX-512"):
        backend(HASWELL).check()
