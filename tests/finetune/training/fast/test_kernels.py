"""Where Liger's kernels are used. What they compute is compared on a GPU, by `benchmarks.train_speed`'s losses."""

from __future__ import annotations

from types import SimpleNamespace

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
