"""The lack of memory, however it is said."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.torch
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(ALLOCATOR),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_it_is_recognised(error: Exception) -> None:
    from finetune.training.memory import is_out_of_memory

    assert is_out_of_memory(error)


def test_it_is_recognised_behind_another_error() -> None:
    from finetune.training.memory import is_out_of_memory

    error = ValueError("the batch could not be made")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(FileNotFoundError(2, "No such file"))


def test_torch_says_it_with_an_error_of_its_own() -> None:
    import torch

    from finetune.training.memory import is_out_of_memory

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))


def test_figures_of_this_process() -> None:
    import torch

    from finetune.training.memory import Meter

    meter = Meter(torch.device("cpu"))
    assert 50 << 20 < meter.used_bytes() <= meter.peak_bytes() + (1 << 20)
    assert meter.peak_bytes() < meter.total_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert Meter(torch.device("cpu"), 1 << 28).total_bytes() == 1 << 28


def test_parts() -> None:
    import torch

    from finetune.training.memory import Meter, by_part

    class Peak(Meter):
        def __init__(self) -> None:
            self.base_bytes = 3_000

        def peak_bytes(self) -> int:
            return 10_000

    model = torch.nn.Sequential(
        torch.nn.Linear(10, 10, bias=False).requires_grad_(False), torch.nn.Linear(10, 5, bias=False)
    )
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad])
    torch.autograd.backward(model(torch.ones(1, 10)).sum())
    optimizer.step()
    parts = by_part(model, optimizer, Peak())
    assert {name: parts[name] for name in ("weights", "adapter", "gradients")} == {
        "weights": 400, "adapter": 200, "gradients": 200,
    }  # fmt: skip
    assert 400 <= parts["optimizer"] <= 408
    assert sum(parts.values()) == 10_000
    assert by_part(None, None, Peak()) == {
        "weights": 0, "adapter": 0, "gradients": 0, "optimizer": 0, "overhead": 3_000, "activations": 7_000,
    }  # fmt: skip
