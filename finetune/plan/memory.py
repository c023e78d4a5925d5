"""How much memory a run takes, by part, at the moment when it takes most.

Bytes of one forward and backward pass of a micro batch of T tokens (b: bytes of the computing dtype, h: hidden size, V: vocabulary):

- weights: 4-bit loading leaves embeddings, head, norms and biases as they are. NF4 with double quantisation takes 4 bits, 8 bits for
  each 64 weights, and 32 bits for each 256 of those: 4.127 bits a weight (arXiv 2305.14314, section 3).
- adapter and its gradients: 32 bits each, and the adapter once more as autocast makes it. AdamW: twice 32 bits a parameter, twice 8
  with the 8-bit one.
- ewc: 32 bits for each input and each output of an adapted layer (`finetune.training.ewc`).
- activations: with checkpointing T*h*b for each layer, and what one layer leaves while it is computed again and gone through
  backwards; without, what every layer leaves (`activations`).
- logits: T*V of the computing dtype and three copies in 32 bits (log-probabilities, and two gradients); chunked, of a few tokens only.
- workspace: the largest linear layer dequantised.

With checkpointing, logits are gone when a layer is gone through backwards: the greater of the two moments counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from finetune.plan.activations import layer_bytes, passing_bytes, score_bytes
from finetune.plan.adapter import adapted, num_trainable
from finetune.plan.device import Device
from finetune.plan.shape import ModelShape
from finetune.plan.units import MIB
from finetune.recipe.recipe import Lora, Recipe

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight, constants included."""
CHUNK_TOKENS = 512
"""Whose logits are there at a time, where the loss is chunked (`finetune.training.losses`)."""
CUDA_CONTEXT = 600 * MIB
"""Of CUDA and its libraries, which torch does not count as its own."""
PROCESS = 600 * MIB
"""Resident memory of Python with torch, transformers and peft before a model is loaded."""
FRAGMENTATION = 0.1
"""Of what comes and goes: freed memory that fits no request."""
HEAP = 1.5
"""Resident memory of a process by what all layers leave: the C library keeps what is freed between what is not, so that checkpointing
saves little of it. Measured with the demo model; with MALLOC_MMAP_THRESHOLD_ at 1 MiB it is gone, and steps take a quarter longer."""
_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
PARTS = ("weights", "adapter", "gradients", "optimizer", "ewc", "activations", "logits", "workspace", "overhead")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    parts: Mapping[str, int]
    """Bytes by name, of `PARTS`."""
    peak: str
    """When most is taken: `loss`, or `backward` through the last layer."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def allocated(self) -> int:
        """What torch's allocator will have handed out at most, on a GPU."""
        return self.total - self.parts["overhead"]

    def measured_on(self, device: Device) -> int:
        """What a run's `peak_bytes` are the measurement of: tensors on a GPU, else the process' resident memory."""
        return self.allocated if device.is_gpu else self.total


def compute_bytes(recipe: Recipe, device: Device) -> int:
    """Of a number in the computing dtype."""
    return _DTYPE_BYTES[recipe.memory.dtype or ("bfloat16" if device.is_gpu and device.has_bf16 else "float32")]


def estimate(
    shape: ModelShape, recipe: Recipe, device: Device, num_tokens: int | None = None, upcasts: bool = False
) -> MemoryPlan:
    """`num_tokens` of the largest micro batch, padding included; else rows of full length.

    `upcasts`: embeddings, head and the residual stream are kept in 32 bits, as `prepare_model_for_kbit_training` has it and published
    measurements were made; our trainer does not do that. Raises RecipeUnusable.
    """
    tokens = num_tokens or recipe.steps.micro_batch_size * recipe.data.max_length
    width = compute_bytes(recipe, device)
    stream = 4 if upcasts else width
    moments = {
        "loss": {
            "activations": _kept(shape, recipe, tokens, width, stream),
            "logits": _logits(shape, recipe, tokens, width),
        },
        "backward": {
            "activations": _kept(shape, recipe, tokens, width, stream) + _worked_on(shape, recipe, tokens, width),
            "workspace": shape.largest_linear * width if recipe.memory.load_in_4bit else 0,
        },
    }
    peak = max(moments, key=lambda name: sum(moments[name].values()))
    moving = moments[peak]
    overhead = _overhead(shape, recipe, device, tokens, sum(moving.values()))
    parts = _standing(shape, recipe, device, width, stream) | moving | {"overhead": overhead}
    return MemoryPlan({name: parts.get(name, 0) for name in PARTS}, peak)


def side_by_side(
    shape: ModelShape, recipe: Recipe, device: Device, num_tokens: int | None = None
) -> Mapping[str, MemoryPlan]:
    """The same run with all weights trained, with an adapter on the weights as they are, and on weights of 4 bits."""
    lora, whole = recipe.lora or Lora(), replace(recipe.memory, load_in_4bit=False)
    ways = {
        "full": replace(recipe, lora=None, memory=whole),
        "lora": replace(recipe, lora=lora, memory=whole),
        "qlora": replace(recipe, lora=lora, memory=replace(recipe.memory, load_in_4bit=True)),
    }
    return {name: estimate(shape, way, device, num_tokens) for name, way in ways.items()}


def weight_bytes(shape: ModelShape, is_quantised: bool, width: int, stream: int | None = None) -> int:
    """Of the model; `stream`: bytes of a number in embeddings, head and norms, where they differ from the others."""
    rest = (shape.num_embedding_weights + shape.num_vector_weights) * (stream or width)
    return rest + int(shape.num_block_weights * (NF4_BITS / 8 if is_quantised else width))


def _overhead(shape: ModelShape, recipe: Recipe, device: Device, tokens: int, moving: int) -> int:
    """Beside the parts, of which `moving` come and go."""
    lost = int(FRAGMENTATION * moving)
    if device.is_gpu:
        return CUDA_CONTEXT + lost
    width = compute_bytes(recipe, device)
    whole = replace(recipe, memory=replace(recipe.memory, gradient_checkpointing=False))
    left = _kept(shape, whole, tokens, width, width)
    return PROCESS + max(lost, int(HEAP * left) - moving)


def _standing(shape: ModelShape, recipe: Recipe, device: Device, width: int, stream: int) -> dict[str, int]:
    """What is there all the time, by part."""
    trained = num_trainable(shape, recipe.lora)
    trained_width = width if recipe.lora is None else 4
    return {
        "weights": weight_bytes(shape, recipe.memory.load_in_4bit, width, stream),
        "adapter": 0 if recipe.lora is None else trained * (trained_width + (width if width < 4 else 0)),
        "gradients": trained * trained_width,
        "optimizer": int(trained * _state_bytes(recipe, device, trained_width)),
        "ewc": _ewc_bytes(shape, recipe),
    }


def _ewc_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """Both factors of every adapted layer."""
    if recipe.ewc is None or recipe.lora is None:
        return 0
    return 4 * sum((linear.num_in + linear.num_out) * linear.count for linear in adapted(shape, recipe.lora))


def _state_bytes(recipe: Recipe, device: Device, trained_width: int) -> float:
    """Of both moments of a parameter: torch keeps them in its dtype, bitsandbytes in 8 bits and 32 for each 256 of them."""
    if recipe.steps.optimizer == "adamw_torch" or not device.is_gpu:
        return 2 * trained_width
    return 2 * (1 + 4 / 256)


def _kept(shape: ModelShape, recipe: Recipe, tokens: int, width: int, stream: int) -> int:
    """What all layers leave."""
    if recipe.memory.gradient_checkpointing:
        kept = sum(linear.num_out for linear in shape.linears if linear.name in recipe.memory.keep_outputs)
        return shape.num_layers * tokens * (shape.hidden * stream + kept * width)
    scores = score_bytes(shape, recipe, tokens, width)
    return shape.num_layers * (tokens * layer_bytes(shape, recipe, width) + scores)


def _worked_on(shape: ModelShape, recipe: Recipe, tokens: int, width: int) -> int:
    """What is there for the layer that is gone through backwards, beside what all leave."""
    gradients = tokens * passing_bytes(shape, width)
    if not recipe.memory.gradient_checkpointing:
        return gradients
    return gradients + tokens * layer_bytes(shape, recipe, width) + score_bytes(shape, recipe, tokens, width)


def _logits(shape: ModelShape, recipe: Recipe, tokens: int, width: int) -> int:
    """Chunked: with the hidden states that are trained and their gradient, which is made with the loss."""
    if not recipe.memory.chunked_loss:
        return tokens * shape.vocab * (width + 12)
    return min(tokens, CHUNK_TOKENS) * shape.vocab * (width + 12) + tokens * shape.hidden * 2 * width
