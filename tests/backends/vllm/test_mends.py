"""The mends, in processes that have vLLM; and where something of it is missing, that nothing comes of it but a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from backends.vllm.inside import mends
from backends.vllm.pythonpath import MENDS_MODULE, place
from tests.vllm_environment import MISSING, vllm_python

BEGIN = f"""
import torch
import vllm.platforms as platforms
import {MENDS_MODULE} as mends

def spread(function, values, cumulative, replace_from, replace_to):
    output = torch.full((cumulative[-1],), -7, dtype=values.dtype)
    kinds = dict(dtype=torch.int32)
    function(output, values, torch.tensor(cumulative, **kinds), replace_from, replace_to, MAX_NUM_TOKENS=32)
    return output.tolist()
"""
SHAPES = """
half = lambda *values: torch.tensor(values, dtype=torch.float32)
whole = lambda *values: torch.tensor(values, dtype=torch.int32)
assert spread(mends.expand, half(0.5, 1.5), [3, 5], 0, 1) == [0.5, 0.5, 0.5, 1.5, 1.5]
assert spread(mends.expand, half(0.0, 0.25, 0.0), [1, 1, 3], 0, 1) == [1.0, 1.0, 1.0]  # nothing drafted for one of them
assert spread(mends.expand, whole(5, 0, 9), [2, 3, 6], 0, 0) == [5, 5, 0, 9, 9, 9]
assert spread(mends.expand, whole(5, 9).long(), [1, 2], 9, 4) == [5, 4]
given = half(0.0)
spread(mends.expand, given, [2], 0, 1)
assert given.tolist() == [0.0]
longer = torch.full((4,), -7.0)
mends.expand(longer, half(2.0), whole(2), 0, 1)
assert longer.tolist() == [2.0, 2.0, -7.0, -7.0]
"""
USED = """
assert platforms.current_platform.is_cpu()
import vllm.v1.sample.rejection_sampler as sampler
{first}
{second}
values = torch.tensor([0.0, 0.5])
found = sampler.expand_batch_to_tokens(values, torch.tensor([2, 3], dtype=torch.int32), 3, 0, 1)
assert found.tolist() == [1.0, 1.0, 0.5], found
"""
REGISTER = "platforms.current_platform.register_triton_kernel_overrides()"
PLUGINS = "import vllm.plugins; vllm.plugins.load_general_plugins()"
TOP_K = """
import vllm.v1.sample.ops.topk_topp_sampler as sampling
{plugins}
nothing = sampling.apply_top_k_top_p_pytorch(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int32), None, True)
assert nothing.shape == (0, 4)
kept = sampling.apply_top_k_top_p_pytorch(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), torch.tensor([2], dtype=torch.int32), None, True)
assert kept.isfinite().tolist() == [[False, True, True, False]], kept
assert not mends.mend_top_k()
"""
EACH = """
import json, os, sys, traceback
for name, code in json.loads(sys.stdin.read()).items():
    if (child := os.fork()) == 0:
        try:
            exec(code, globals())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(json.dumps([name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]), flush=True)
"""
"""In processes of their own that have all imported what comes before, which takes longest."""
RIGHT = """
import vllm.utils.cpu_triton_utils as kernels
def right(*args, **kwargs): mends.expand(*args, **kwargs)
kernels._expand_kernel_impl = right
assert not mends.mend_expand()
assert kernels._expand_kernel_impl is right
"""


CODES = {
    "shapes": SHAPES,
    "before vLLM takes its kernels": USED.format(first=PLUGINS, second=REGISTER),
    "after": USED.format(first=REGISTER, second=PLUGINS),
    "one that is right": RIGHT,
    "top_k of nothing": TOP_K.format(plugins=PLUGINS),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_vllm(tmp_path: Path) -> None:
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    env = {**os.environ, "PYTHONPATH": str(place(tmp_path)), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [python, "-c", BEGIN + EACH], env=env, cwd="/", input=json.dumps(CODES), capture_output=True, text=True, timeout=280
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    codes = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert codes == dict.fromkeys(CODES, 0), done.stdout + done.stderr


def of_vllm(monkeypatch: pytest.MonkeyPatch, *, is_cpu: bool) -> None:
    platform = ModuleType("vllm.platforms")
    platform.current_platform = SimpleNamespace(is_cpu=lambda: is_cpu)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.platforms", platform)


def test_what_it_cannot_do_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    of_vllm(monkeypatch, is_cpu=True)
    monkeypatch.setitem(sys.modules, "vllm._custom_ops", None)
    mends.mend()
    (line,) = caplog.messages
    assert "could not look after sampling beside speculation on the CPU" in line
    assert line.endswith("ModuleNotFoundError: import of vllm._custom_ops halted; None in sys.modules")


def test_gpus_have_nothing_to_mend(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    of_vllm(monkeypatch, is_cpu=False)
    mends.mend()
    assert caplog.messages == []
