"""Where Liger's kernels are used. What they compute is compared on a GPU, by `benchmarks.train_speed`'s losses."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

torch = pytest.importorskip("torch")


def config(model_type: str) -> SimpleNamespace:
    return SimpleNamespace(model_type=model_type)


@pytest.mark.parametrize("missing", ["liger_kernel", "triton"])
def test_they_need_a_gpu_a_known_model_and_their_packages(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    from finetune.training.fast import kernels

    gpu = torch.device("cuda")
    assert kernels.obstacle(config("llama"), torch.device("cpu")) == "it needs a GPU"
    assert kernels.obstacle(config("mamba"), gpu) == "it is for llama, mistral, qwen2, qwen3, and the model is mamba"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    assert kernels.obstacle(config("llama"), gpu) == f"{missing} cannot be imported here"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert kernels.obstacle(config("llama"), gpu) == ""


def test_the_loss_stays_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their package needs Triton; what is called is played here."""
    from finetune.training.fast import kernels

    asked = {}
    played = ModuleType("liger_kernel.transformers.monkey_patch")
    played.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": lambda **parts: asked.update(parts)}  # type: ignore[attr-defined]
    for name, module in (
        (played.__name__, played),
        ("liger_kernel.transformers", ModuleType("t")),
        ("liger_kernel", ModuleType("l")),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    model = SimpleNamespace(config=config("llama"))
    kernels.patch(model)
    assert asked.pop("model") is model
    assert {name for name, is_on in asked.items() if is_on} == {"rope", "rms_norm", "swiglu"}
    assert {name for name, is_on in asked.items() if not is_on} == {"cross_entropy", "fused_linear_cross_entropy"}
