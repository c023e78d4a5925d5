"""How much memory a llama.cpp engine takes: weights, KV cache, compute buffers, each on its device. Pure arithmetic.

What llama.cpp allocates is known to the byte for weights and KV cache. The compute buffer is what its graph allocator finds to be
the most that lives at one time: an attention mask, and either one layer's inner values or the logits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from backends.llamacpp.header import TYPE_SIZES
from backends.llamacpp.options import Options
from backends.llamacpp.purpose import POOLED
from backends.llamacpp.shape import Layer, Shape
from backends.llamacpp.sizes import GGML_TYPES, cells_per_sequence, num_cells, num_outputs, num_sequence_ids
from backends.plan import MIB, RAM, Use

PROCESS_BYTES = 128 * MIB
"""Python, numpy, the HTTP server and libllama themselves."""
TOKEN_BYTES = 600
"""Of each vocabulary entry: llama.cpp's maps and ours."""
CELL_BYTES = 64
"""Of each KV cell, beside keys and values: position and sequences."""
ADAPTER_RANK = 16
"""An adapter's memory is counted as that of this rank on every attention and feed-forward matrix, in F32."""
COMPUTE_MARGIN = 1.1
COMPUTE_BASE_BYTES = 4 * MIB
PIPELINE_COPIES = 4
"""llama.cpp keeps its graph's inputs this often when a model is spread over several GPUs."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as the engine's llama.cpp sees it, with that process's own needs already taken off `free_bytes`."""

    name: str
    description: str
    free_bytes: int
    total_bytes: int
    is_in_ram: bool = False
    """Its memory is the machine's RAM (integrated graphics, Apple silicon)."""


def kv_bytes_per_cell(layer: Layer, options: Options) -> float:
    return _type_bytes(layer.k_width, options.cache_type_k) + _type_bytes(layer.v_width, options.cache_type_v)


def kv_bytes(layer: Layer, options: Options) -> int:
    """Of all cells, and of what recurrent layers keep for each sequence."""
    return int(kv_bytes_per_cell(layer, options) * num_cells(options)) + (
        4 * layer.state_values * num_sequence_ids(options)
    )


def mask_bytes(shape: Shape, options: Options) -> int:
    """The attention mask: 16 bits wide for flash attention, else 32; one more where some layers see a window only."""
    width = 4 if options.flash_attn == "off" else 2
    return cells_per_sequence(options) * options.n_ubatch * width * (2 if shape.has_window else 1)


def compute_bytes(shape: Shape, options: Options) -> int:
    """The buffer of a graph that holds whole layers and the output."""
    tokens = min(options.n_ubatch, num_cells(options))
    width = max(shape.embedding, shape.attention_width)
    layer = tokens * 4 * (3 * shape.feed_forward + 4 * width)
    if options.flash_attn == "off":
        scores = cells_per_sequence(options) * shape.num_heads * 4
        layer = max(layer, tokens * (scores + 4 * 6 * width))
    logits = 4 * (shape.vocabulary * min(tokens, num_rows(options)) + tokens * 3 * shape.embedding)
    conversion = 2 * tokens * max(shape.feed_forward, width)  # what matrix products turn into the weights' own type
    most = mask_bytes(shape, options) + max(layer, logits) + conversion
    return int(most * COMPUTE_MARGIN) + COMPUTE_BASE_BYTES


def adapter_bytes_per_layer(shape: Shape, layer: Layer) -> int:
    """Of one adapter: rank times the rows and columns of q, k, v, o, gate, up and down."""
    attention = 4 * shape.embedding + 2 * shape.attention_width + layer.k_width + layer.v_width
    return 4 * ADAPTER_RANK * (attention + 3 * (shape.embedding + shape.feed_forward))


def adapter_bytes(shape: Shape, options: Options, layers: Iterable[Layer]) -> int:
    """Of all adapters that may be loaded at the same time, on these layers; they lie where the layers lie."""
    if options.pooling in POOLED:
        return 0
    return options.max_adapters * sum(adapter_bytes_per_layer(shape, layer) for layer in layers)


def num_rows(options: Options) -> int:
    """Rows of logits, or of hidden states to pool, that one step may have."""
    return options.n_batch if options.pooling in POOLED else num_outputs(options)


def placement(num_layers: int, num_on_gpu: int, shares: Sequence[float]) -> list[int | None]:
    """Which device llama.cpp puts each layer on, the output last: None is the CPU. The first layers stay there.

    As llama_model::load_tensors: the layers are dealt out in order, by each device's share.
    """
    num_all = num_layers + 1
    num_on_gpu = min(num_on_gpu, num_all) if sum(shares) > 0 else 0
    first = num_all - num_on_gpu
    points = [point / sum(shares) for point in accumulate(shares)] if num_on_gpu else []
    return [
        None if index < first else min(bisect_right(points, (index - first) / num_on_gpu), len(shares) - 1)
        for index in range(num_all)
    ]


def shares_of(options: Options, devices: Sequence[Device]) -> list[float]:
    """How the layers are spread: by the user's word, else by what is free."""
    if options.split_mode == "none":
        return [1.0 if index == options.main_gpu else 0.0 for index in range(len(devices))]
    if options.tensor_split:
        return [*options.tensor_split, *([0.0] * len(devices))][: len(devices)]
    return [float(device.free_bytes) for device in devices]


def uses(
    shape: Shape, options: Options, devices: Sequence[Device], num_on_gpu: int, ram_bytes: int | None
) -> tuple[Use, ...]:
    """What one engine takes: RAM first, then each device that has a share. `options` are settled: nothing in them is open."""
    places = placement(len(shape.layers), num_on_gpu, shares_of(options, devices))
    used = sorted({place for place in places if place is not None})
    on_devices = (_device_use(shape, options, places, index, devices[index]) for index in used)
    return (_ram_use(shape, options, places, ram_bytes), *on_devices)


def _device_use(shape: Shape, options: Options, places: Sequence[int | None], index: int, device: Device) -> Use:
    mine = [layer for layer, place in zip(shape.layers, places, strict=False) if place == index]
    output = shape.output_bytes + shape.tied_bytes if places[-1] == index else 0
    compute = compute_bytes(shape, options)
    if len({place for place in places if place is not None}) > 1:
        compute += (PIPELINE_COPIES - 1) * mask_bytes(shape, options)
    elsewhere = [layer.weight_bytes for layer, place in zip(shape.layers, places, strict=False) if place is None]
    if places[-1] is None:
        elsewhere.append(shape.output_bytes + shape.tied_bytes)
    # A prompt's products with weights that lie in RAM are computed on the first GPU, on a copy of them.
    compute += max(elsewhere, default=0) if index == 0 else 0
    return Use(
        device=device.name,
        weights_bytes=sum(layer.weight_bytes for layer in mine) + output,
        kv_bytes=sum(kv_bytes(layer, options) for layer in mine),
        compute_bytes=compute,
        other_bytes=0,
        free_bytes=device.free_bytes,
        adapter_bytes=adapter_bytes(shape, options, mine),
    )


def _ram_use(shape: Shape, options: Options, places: Sequence[int | None], ram_bytes: int | None) -> Use:
    mine = [layer for layer, place in zip(shape.layers, places, strict=False) if place is None]
    weights = shape.input_bytes + sum(layer.weight_bytes for layer in mine)
    weights += shape.output_bytes if places[-1] is None else 0
    is_shared = options.use_mmap and not shape.is_quantised
    if not mine and places[-1] is not None:
        compute = 2 * mask_bytes(shape, options) + 4 * options.n_ubatch * shape.embedding + COMPUTE_BASE_BYTES
    else:
        compute = compute_bytes(shape, options)
    return Use(
        device=RAM,
        weights_bytes=weights,
        kv_bytes=sum(kv_bytes(layer, options) for layer in mine),
        compute_bytes=compute,
        other_bytes=PROCESS_BYTES
        + TOKEN_BYTES * shape.vocabulary
        + CELL_BYTES * num_cells(options)
        + 4 * shape.vocabulary * num_rows(options),
        free_bytes=ram_bytes,
        shared_bytes=weights if is_shared else 0,
        adapter_bytes=adapter_bytes(shape, options, mine),
    )


def _type_bytes(num_values: int, cache_type: str) -> float:
    block, num_bytes = TYPE_SIZES[GGML_TYPES[cache_type]]
    return num_values / block * num_bytes
