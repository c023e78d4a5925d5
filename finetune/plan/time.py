"""How long a run takes: its micro batches, each as long as the device computes, or as long as the host launches what it computes.

The device:

- Matrix products. A token takes 2 FLOPs a weight forwards, 2 when it is computed again under checkpointing, and 2 for the gradient of
  the activations: 6 with frozen weights, 4 without checkpointing, 2 more where the weights themselves are trained (their gradients).
  The output head is not computed again, nor are outputs that are kept. Attention over a row of L tokens adds 2*q*L forwards in each
  layer (half of the square is masked), as much again, and 5*q*L backwards (arXiv 2307.08691).
- Memory. Each pass over 4-bit weights reads them and writes and reads them in 16 bits. What a layer leaves is written and read forwards,
  as much again, and read backwards with a gradient that is written and read. Products of an adapter are so narrow that what they take is
  reading what they multiply: the input forwards and backwards, the output to add to it, its gradient twice, the input's to add to it.

The host launches some 350 kernels a layer, the same for few tokens as for many, while the device computes what was launched before: of
the two, the slower one counts. A processor that computes itself does one after the other.

The constants are those of an 8B QLoRA on one H200 (benchmarks/results/h200-train-speed): its products were measured by themselves, the
bandwidth is that of the profile's dequantisation, and the host's time lies between that of the two runs, which waited for their host.
Against measurements: the kernels of a micro batch of 2 x 2,048 tokens 378 ms, 380 in the profile; 8,830 tokens/s, 9,667 and 8,100 in the
runs, whose host launched faster or slower; the demo recipe on two cores 156 s, two and a half minutes by its own words. Of what other
trainers published on an RTX 4090 and an A100 it is 0.6 to 1.6 times. How fast a host launches differs from machine to machine by more.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.plan.activations import layer_bytes
from finetune.plan.adapter import adapted, num_trainable
from finetune.plan.device import Device
from finetune.plan.memory import NF4_BITS, compute_bytes
from finetune.plan.shape import ModelShape
from finetune.plan.steps import Steps
from finetune.recipe.recipe import Recipe

MATMUL_SHARE = 0.68
"""Of a data sheet's matrix rate: 669 and 673 of 989 TFLOP/s."""
BANDWIDTH_SHARE = 0.78
"""Of a data sheet's: 2,688 matrices were dequantised at 3.7 of 4.8 TB/s."""
FP32_SLOWDOWN = 8
"""Of 32-bit matrix products on a GPU, where TF32 is off."""
HOST_SECONDS = 0.0144
"""To launch one layer's passes, with all its linear layers adapted and checkpointing; torch.compile makes it neither more nor less."""
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


def speed(shape: ModelShape, recipe: Recipe, device: Device, steps: Steps, row_length: float) -> Speed | None:
    """None where nothing is known of the device's rates. `row_length`: tokens of the row that a token lies in, on average."""
    seconds = micro_batch_seconds(shape, recipe, device, steps.tokens_per_micro_batch, row_length)
    if seconds is None:
        return None
    total = seconds * steps.num_micro_batches * steps.num_epochs
    is_waiting = seconds > (device_seconds(shape, recipe, device, steps.tokens_per_micro_batch, row_length) or 0)
    return Speed(seconds, total, steps.num_tokens * steps.num_epochs / max(total, 1e-9), _basis(device, is_waiting))


def _basis(device: Device, is_waiting: bool) -> str:
    if not device.is_gpu:
        return f"{device.name}: {device.tflops or 0:.2g} TFLOPS assumed, which may be wrong by a factor of three"
    if is_waiting:
        return f"{device.name}: as fast as a host launches its kernels, which differs by a fifth and more"
    return f"{device.name}: {MATMUL_SHARE:.0%} of its data sheet's rate"


def micro_batch_seconds(
    shape: ModelShape, recipe: Recipe, device: Device, num_tokens: float, row_length: float
) -> float | None:
    """Forwards and backwards, on one device. None where nothing is known of its rates."""
    computing = device_seconds(shape, recipe, device, num_tokens, row_length)
    if computing is None:
        return None
    launching = shape.num_layers * _host_seconds(recipe, device)
    return max(computing, launching) if device.is_gpu else computing + launching


def device_seconds(
    shape: ModelShape, recipe: Recipe, device: Device, num_tokens: float, row_length: float
) -> float | None:
    """Of its kernels alone."""
    if device.tflops is None or device.gb_s is None:
        return None
    rate = device.tflops * 1e12
    if device.is_gpu:
        rate *= MATMUL_SHARE / (1 if compute_bytes(recipe, device) == 2 else FP32_SLOWDOWN)
    products = num_tokens * flops_per_token(shape, recipe, row_length) / rate
    return products + traffic_bytes(shape, recipe, device, num_tokens) / (device.gb_s * 1e9 * BANDWIDTH_SHARE)


def flops_per_token(shape: ModelShape, recipe: Recipe, row_length: float) -> float:
    """Of one forward and backward pass."""
    again = _again(recipe)
    kept = sum(linear.num_weights for linear in shape.linears if linear.name in recipe.memory.keep_outputs)
    head = shape.vocab * shape.hidden
    frozen = 2 * (2 + again) * shape.num_block_weights - 2 * again * kept + 4 * head
    trained = num_trainable(shape, recipe.lora)
    own = 2 * trained if recipe.lora is None else 2 * (3 + again) * trained
    attention = shape.num_layers * shape.query * row_length * (2 * (1 + again) + 5)
    return frozen + own + attention


def traffic_bytes(shape: ModelShape, recipe: Recipe, device: Device, num_tokens: float) -> float:
    """Read and written, beside what the matrix products themselves move."""
    width, again = compute_bytes(recipe, device), _again(recipe)
    dequantised = shape.num_block_weights * (NF4_BITS / 8 + 2 * width) if recipe.memory.load_in_4bit else 0
    left = (5 + 2 * again) * shape.num_layers * layer_bytes(shape, recipe, width)
    return (2 + again) * dequantised + num_tokens * (left + _adapter_bytes(shape, recipe, width))


def _adapter_bytes(shape: ModelShape, recipe: Recipe, width: int) -> float:
    """A token."""
    if recipe.lora is None:
        return 0
    again = _again(recipe)
    return width * sum(
        linear.count * ((4 + again) * linear.num_in + (4 + 2 * again) * linear.num_out)
        for linear in adapted(shape, recipe.lora)
    )


def _again(recipe: Recipe) -> int:
    """How often a layer's forward pass is made once more."""
    return 1 if recipe.memory.gradient_checkpointing else 0


def _host_seconds(recipe: Recipe, device: Device) -> float:
    """For one layer."""
    if not device.is_gpu:
        return CPU_HOST_SECONDS
    return HOST_SECONDS * (2 + _again(recipe)) / 3
