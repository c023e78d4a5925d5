"""How long a run takes: its micro batches, each as long as three things make it.

- Matrix products. A token takes 2 FLOPs a weight forwards, 2 when it is computed again under checkpointing, and 2 for the gradient of
  the activations: 6 with frozen weights, 4 without checkpointing, 2 more where the weights themselves are trained (their gradients).
  The output head is not computed again. Attention over a row of L tokens adds 2*q*L forwards in each layer (half of the square is masked),
  as much again, and 5*q*L backwards (arXiv 2307.08691).
- Memory. Each pass over 4-bit weights reads them and writes and reads them in 16 bits; each pass over a layer's activations about as
  much as it leaves, five times in all.
- The host, which starts some hundred kernels a layer: the same for few tokens as for many, so that short micro batches are slow.

Rates are shares of the data sheet's. The constants were set by an 8B QLoRA run on an H200 (4,206 tokens/s, packed). The tests hold them
against that run, a padded one (1,505 tokens/s), and published ones on an RTX 4090 and an A100.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.plan.activations import layer_bytes
from finetune.plan.adapter import num_trainable
from finetune.plan.device import Device
from finetune.plan.memory import NF4_BITS, compute_bytes
from finetune.plan.shape import ModelShape
from finetune.plan.steps import Steps
from finetune.recipe.recipe import Recipe

MATMUL_SHARE = 0.75
"""Of a data sheet's matrix rate."""
BANDWIDTH_SHARE = 0.8
FP32_SLOWDOWN = 8
"""Of 32-bit matrix products on a GPU, where TF32 is off."""
HOST_SECONDS = 0.02
"""To start the kernels of one layer's passes, with all its linear layers adapted and checkpointing."""
COMPILED_HOST_SHARE = 1 / 3
CPU_HOST_SECONDS = 0.002
NUM_TRIES = (3, 5)
"""What the article reckons with until a run is good."""


@dataclass(frozen=True, slots=True)
class Speed:
    seconds_per_micro_batch: float
    seconds: float
    """Of the whole run, evaluations left out."""
    tokens_per_s: float
    """Without padding, of all devices."""
    basis: str
    """What the estimate rests on."""


def speed(shape: ModelShape, recipe: Recipe, device: Device, steps: Steps, mean_length: float) -> Speed | None:
    """None where nothing is known of the device's rates. `mean_length`: tokens of a row, which is as far as attention looks."""
    seconds = micro_batch_seconds(shape, recipe, device, steps.tokens_per_micro_batch, mean_length)
    if seconds is None:
        return None
    total = seconds * steps.num_micro_batches * steps.num_epochs
    return Speed(seconds, total, steps.num_tokens * steps.num_epochs / max(total, 1e-9), _basis(device))


def _basis(device: Device) -> str:
    if device.is_gpu:
        return f"{device.name}: {MATMUL_SHARE:.0%} of its data sheet's rate, and the host's time for each layer"
    return f"{device.name}: {device.tflops or 0:.2g} TFLOPS assumed, which may be wrong by a factor of three"


def micro_batch_seconds(
    shape: ModelShape, recipe: Recipe, device: Device, num_tokens: float, mean_length: float
) -> float | None:
    """Forwards and backwards, on one device. None where nothing is known of its rates."""
    if device.tflops is None or device.gb_s is None:
        return None
    rate = device.tflops * 1e12
    if device.is_gpu:
        rate *= MATMUL_SHARE / (1 if compute_bytes(recipe, device) == 2 else FP32_SLOWDOWN)
    products = num_tokens * flops_per_token(shape, recipe, mean_length) / rate
    moved = traffic_bytes(shape, recipe, device, num_tokens) / (device.gb_s * 1e9 * BANDWIDTH_SHARE)
    return products + moved + shape.num_layers * _host_seconds(recipe, device)


def flops_per_token(shape: ModelShape, recipe: Recipe, mean_length: float) -> float:
    """Of one forward and backward pass."""
    again = 1 if recipe.memory.gradient_checkpointing else 0
    head = shape.vocab * shape.hidden
    frozen = 2 * (2 + again) * shape.num_block_weights + 4 * head
    trained = num_trainable(shape, recipe.lora)
    own = 2 * trained if recipe.lora is None else 2 * (3 + again) * trained
    attention = shape.num_layers * shape.query * mean_length * (2 * (1 + again) + 5)
    return frozen + own + attention


def traffic_bytes(shape: ModelShape, recipe: Recipe, device: Device, num_tokens: float) -> float:
    """Read and written, beside what the matrix products themselves move."""
    width = compute_bytes(recipe, device)
    passes = 3 if recipe.memory.gradient_checkpointing else 2
    dequantised = shape.num_block_weights * (NF4_BITS / 8 + 2 * width) if recipe.memory.load_in_4bit else 0
    return passes * dequantised + 5 * shape.num_layers * num_tokens * layer_bytes(shape, recipe, width)


def _host_seconds(recipe: Recipe, device: Device) -> float:
    """For one layer."""
    if not device.is_gpu:
        return CPU_HOST_SECONDS
    share = (1 if recipe.memory.gradient_checkpointing else 2 / 3) * (
        COMPILED_HOST_SHARE if recipe.memory.compile else 1
    )
    return HOST_SECONDS * share
