"""What a layer's forward pass leaves for the backward pass, in bytes a token. `width`: bytes of a number in the computing dtype.

Of a block with hidden size h, queries of width q, keys of width k and an MLP of width m: the inputs of its norms in 32 bits (2 * 4h), the
norms' outputs (2h), queries, keys and values (q + 2k), the attention's output as the kernel gives it and as the next layer takes it
(2q), and of the MLP gate, its activation, up and their product (4m; 2m where nothing gates). This is the count of Korthikanti et al.
(arXiv 2205.05198, section 4) for attention that keeps no scores and linear layers whose weights need no gradient.
"""

from __future__ import annotations

from finetune.plan.adapter import adapted
from finetune.plan.shape import ModelShape
from finetune.recipe.recipe import Recipe


def layer_bytes(shape: ModelShape, recipe: Recipe, width: int) -> int:
    """Left by one layer, a token."""
    norms = 8 * shape.hidden + 2 * shape.hidden * width
    attention = (3 * shape.query + 2 * shape.key) * width
    mlp = (4 if shape.is_gated else 2) * shape.intermediate * width
    return norms + attention + mlp + _adapter_inputs(shape, recipe, width)


def passing_bytes(shape: ModelShape, width: int) -> int:
    """Gradients that are there at a time while one layer is gone through backwards, a token."""
    return ((3 if shape.is_gated else 1) * shape.intermediate + 2 * shape.hidden) * width


def score_bytes(shape: ModelShape, recipe: Recipe, num_tokens: int, width: int) -> int:
    """Of one layer's attention scores: what goes into the softmax, what comes out in 32 bits, and that in the computing dtype.

    Only `eager` attention keeps them; the others compute them again in pieces.
    """
    if recipe.memory.attention != "eager":
        return 0
    length = -(-num_tokens // recipe.steps.micro_batch_size)
    return recipe.steps.micro_batch_size * shape.num_heads * length * length * (2 * width + 4)


def _adapter_inputs(shape: ModelShape, recipe: Recipe, width: int) -> int:
    """Copies of inputs that each adapted layer keeps for itself: after dropout, with its mask, or cast for an adapter of 32 bits.

    Without either, the layers that read one tensor share it.
    """
    if recipe.lora is None:
        return 0
    inputs = sum(linear.num_in for linear in adapted(shape, recipe.lora))
    if recipe.lora.dropout:
        return inputs * (width + 1)
    is_cast = not recipe.memory.load_in_4bit and width < 4
    return inputs * width if is_cast else 0
