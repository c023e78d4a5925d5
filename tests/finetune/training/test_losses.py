"""Chunked cross entropy is cross entropy, gradients and all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def labels_of(rng: Any, share: float, shape: tuple[int, int], vocabulary: int) -> Any:
    import torch

    labels = torch.randint(0, vocabulary, shape, generator=rng)
    return torch.where(torch.rand(shape, generator=rng) < share, labels, -100)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_loss_and_gradients_are_equal(monkeypatch: pytest.MonkeyPatch, share: float, chunk: int) -> None:
    import torch

    from finetune.training import losses

    monkeypatch.setattr(losses, "CHUNK_TOKENS", chunk)
    rng = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(16, 50, bias=False).requires_grad_(False)
    hidden = torch.randn((3, 40, 16), generator=rng)
    labels = labels_of(rng, share, (3, 40), 50)
    one, other = (hidden.clone().requires_grad_() for _ in range(2))
    expected, found = losses.summed_loss(head(one), labels), losses.chunked_loss(other, labels, head)
    torch.autograd.backward(expected / 17)
    torch.autograd.backward(found / 17)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert other.grad is not None
    assert torch.allclose(one.grad if one.grad is not None else torch.zeros(()), other.grad, rtol=1e-5, atol=1e-7)


def test_without_gradients_none_are_made() -> None:
    import torch

    from finetune.training import losses

    head = torch.nn.Linear(4, 9, bias=False).requires_grad_(False)
    hidden, labels = torch.randn(1, 5, 4), torch.tensor([[1, 2, -100, 3, 4]])
    with torch.no_grad():
        found = losses.chunked_loss(hidden, labels, head)
    assert not found.requires_grad
    assert float(found) == pytest.approx(float(losses.summed_loss(head(hidden), labels)), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 2.0),
        ({"final_logit_softcapping": 3.0}, 1.7485),
        ({"logit_scale": 0.5}, 1.0),
        ({"logits_scaling": 8.0, "model_type": "granite"}, 0.25),
        ({"logits_scaling": 8.0, "model_type": "hyperclovax"}, 16.0),
    ],
)
def test_heads_that_scale_or_bound_logits(settings: dict[str, Any], expected: float) -> None:
    import torch

    from finetune.training.losses import head_of

    config = SimpleNamespace(**{"model_type": "llama", **settings})
    model = SimpleNamespace(
        get_output_embeddings=lambda: lambda hidden: 2 * hidden, config=SimpleNamespace(get_text_config=lambda: config)
    )
    assert float(head_of(model)(torch.tensor(1.0))) == pytest.approx(expected, rel=1e-4)
