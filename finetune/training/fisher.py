"""What general rows need of a layer: the mean squares of its inputs, and of how its outputs move the logits.

It is the Fisher information of a model whose logits are read with noise of variance 1, that is J^T J with J the logits' derivatives by the
weights; its diagonal is the mean square of derivatives along random directions. That of the answers' probabilities, which Kirkpatrick et
al. take, vanishes where a model is sure of what it says: of adapters with which the demo model had forgotten nearly all, 1.8 nats a token
from the base, it foresaw 2e-10. Importance by outputs, not by the loss, is that of Aljundi et al. 2018 (arXiv 1711.09601). Positions are
taken as independent, as K-FAC does in a sequence (Eschenhagen et al. 2023, arXiv 2311.00636, "expand").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from backends.atomicfile import atomic_path
from finetune.training.batches import IGNORED
from finetune.training.losses import CHUNK_TOKENS, head_of

NAME = "ewc.safetensors"
"""In the run's folder, for attempts that go on from a checkpoint."""
Factors = tuple[Tensor, Tensor]
"""Of a layer: x [inputs] and g [outputs], float32. Their outer product stands for the diagonal of its information, a trained token."""
_INPUTS, _OUTPUTS = ".inputs", ".outputs"


def measure(
    model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    is_chunked: bool,
    seed: int,
    computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Factors]:
    """Of every adapted layer, by its name; the adapter changes nothing yet. `batches` are what the model takes, with `labels`.

    `is_chunked` and `computing`, which is entered for every forward pass: as the loss is computed in training.
    """
    moments = {name: _Moments(module) for name, module in adapted_layers(model)}
    generator: torch.Generator | None = None
    num_trained = 0
    with _watched(model, moments):
        for batch in batches:
            inputs = dict(batch)
            labels = inputs.pop("labels")
            generator = generator or torch.Generator(labels.device).manual_seed(seed)
            with computing():
                states, gradients = _probed(model, inputs, labels, is_chunked, generator)
            torch.autograd.backward(states, gradients)
            num_trained += int((labels[:, 1:] != IGNORED).sum())
            for value in model.parameters():
                value.grad = None
    return {name: each.factors(num_trained) for name, each in moments.items()}


def adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def save(path: Path, found: Mapping[str, Factors]) -> None:
    tensors = {
        f"{name}{end}": value.cpu()
        for name, pair in found.items()
        for end, value in zip((_INPUTS, _OUTPUTS), pair, strict=True)
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load(path: Path, device: torch.device) -> dict[str, Factors]:
    """Raises OSError, and what safetensors raises for a file that is none."""
    tensors = load_file(path, str(device))
    names = (name.removesuffix(_INPUTS) for name in tensors if name.endswith(_INPUTS))
    return {name: (tensors[name + _INPUTS], tensors[name + _OUTPUTS]) for name in names}


class _Moments:
    """Of one layer, summed over positions."""

    def __init__(self, module: Any) -> None:
        base, device = module.get_base_layer(), next(module.parameters()).device
        self._inputs, self._outputs = (
            torch.zeros(size, dtype=torch.float64, device=device) for size in (base.in_features, base.out_features)
        )
        self._num_positions = 0

    def see(self, module: Any, args: tuple[Any, ...], made: Tensor) -> None:
        """As a hook on the layer. A checkpointed block computes twice, the first time without a graph."""
        if torch.is_grad_enabled() and made.requires_grad:
            rows = args[0].detach().reshape(-1, args[0].shape[-1])
            self._inputs += rows.float().square().sum(0)
            self._num_positions += len(rows)
            made.register_hook(self._see_gradient)  # type: ignore[no-untyped-call]

    def _see_gradient(self, gradient: Tensor) -> None:
        self._outputs += gradient.detach().reshape(-1, gradient.shape[-1]).float().square().sum(0)

    def factors(self, num_trained: int) -> Factors:
        return (self._inputs / max(1, self._num_positions)).float(), (self._outputs / max(1, num_trained)).float()


@contextmanager
def _watched(model: Any, moments: Mapping[str, _Moments]) -> Iterator[None]:
    was_training = model.training
    model.train()  # blocks are checkpointed in training only
    hooks = [module.register_forward_hook(moments[name].see) for name, module in adapted_layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)


def _probed(
    model: Any, inputs: dict[str, Any], labels: Tensor, is_chunked: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits of the trained tokens, or the hidden states that they are made of; and the derivatives by these along random directions."""
    is_wanted = labels[:, 1:] != IGNORED
    if not is_chunked:
        logits = model(**inputs, use_cache=False).logits[:, :-1][is_wanted]
        return logits, _directions(logits, generator).to(logits.dtype)
    causal = model.get_base_model()
    hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1][is_wanted]
    logits_of = head_of(causal)
    parts = [_derivatives(part, logits_of, generator) for part in torch.split(hidden.detach(), CHUNK_TOKENS)]
    return hidden, torch.cat(parts)


def _derivatives(hidden: Tensor, logits_of: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Of a few hundred tokens."""
    with torch.enable_grad():
        states = hidden.requires_grad_()
        logits = logits_of(states)
        made: tuple[Tensor, ...] = torch.autograd.grad(logits, states, _directions(logits, generator).to(logits.dtype))
    return made[0]


def _directions(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One a token, its mean square 1 / vocabulary; what moves all logits alike moves no answer, and is left out."""
    drawn = torch.randn(logits.shape, generator=generator, device=logits.device)
    centred: Tensor = drawn - drawn.mean(-1, keepdim=True)
    return centred / math.sqrt(logits.shape[-1])
