"""Elastic weight consolidation of an adapter: its update of a layer costs more where general rows need the layer as it is.

Kirkpatrick et al. 2017 (arXiv 1612.00796) add  strength / 2 * sum_ij F_ij dW_ij^2  to the loss, F the diagonal of the Fisher information
of the base's weights. Of an adapter dW = s B A is what counts, not A and B apart (Zheng et al. 2026, arXiv 2602.17559). F is as large as
the model; here it is the product of two vectors, F_ij = g_i x_j, the diagonals of K-FAC's factors (Martens & Grosse 2015, arXiv
1503.05671; as a penalty on dW: Chen & Garner 2024, arXiv 2402.12220): x_j the mean square of a layer's input, g_i that of what its output
moves (`fisher`). Then

    sum_ij g_i x_j dW_ij^2  =  s^2 < B^T diag(g) B, A diag(x) A^T >

two products of rank x rank, and dW is never made. Half of it is what a linear model foresees of half the mean square by which the logits
of general rows move: the strength is in nats of loss for one of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.errors import RecipeUnusable
from finetune.training.fisher import Factors, adapted_layers


@dataclass(frozen=True, slots=True)
class Held:
    """An adapted layer, and how fast it is held; vectors in float32."""

    a: Tensor
    """[rank, inputs]"""
    b: Tensor
    """[outputs, rank]"""
    scale: float
    inputs: Tensor
    """x: [inputs]"""
    outputs: Tensor
    """g: [outputs]"""


class Penalty:
    """To be added to the loss once an update."""

    def __init__(self, strength: float, layers: Sequence[Held]) -> None:
        self._strength, self._layers = strength, layers

    @classmethod
    def of(cls, strength: float, model: Any, factors: Mapping[str, Factors]) -> Penalty:
        """On all adapted layers of the model. Raises RecipeUnusable where the factors are of other layers."""
        held = []
        for name, module in adapted_layers(model):
            (adapter,) = module.lora_A
            a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            inputs, outputs = factors.get(name, (a.new_empty(0), b.new_empty(0)))
            if (len(inputs), len(outputs)) != (a.shape[1], b.shape[0]):
                raise RecipeUnusable(f"ewc: {name} was not measured: begin anew without --resume")
            held.append(Held(a, b, float(module.scaling[adapter]), inputs, outputs))
        return cls(strength, held)

    def __call__(self) -> Tensor:
        """Nats, with gradients of A and B."""
        apply: Callable[..., Tensor] = _Drift.apply
        with torch.autocast(self._layers[0].a.device.type, enabled=False):
            drifts = [apply(each.a, each.b, each.inputs, each.outputs, each.scale) for each in self._layers]
            return torch.stack(drifts).sum() * self._strength


class _Drift(torch.autograd.Function):
    """s^2 / 2 < B^T diag(g) B, A diag(x) A^T >; what is kept for the gradients is of rank x rank."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, inputs: Tensor, outputs: Tensor, scale: float) -> Tensor:
        left, right = (b.t() * outputs) @ b, (a * inputs) @ a.t()
        ctx.save_for_backward(a, b, inputs, outputs, left, right)
        ctx.scale = scale
        return (left * right).sum() * (scale**2 / 2)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        a, b, inputs, outputs, left, right = ctx.saved_tensors
        factor = outer[0] * ctx.scale**2
        grad_a = (left @ a).mul_(inputs).mul_(factor)
        grad_b = (b @ right).mul_(outputs[:, None]).mul_(factor)
        return grad_a, grad_b, None, None, None
