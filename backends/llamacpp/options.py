"""Options of a llama.cpp engine: one frozen schema, read from YAML or from flags, written as flags.

Every attribute's docstring is its help text. Importing this module loads neither llama_cpp nor numpy, so the gateway can
check a configuration without the engine installed.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import optionschema
from backends.optionschema import Check, OptionsError, check_all

__all__ = ["Options", "OptionsError", "add_arguments", "from_args", "option_docs"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
SPLIT_MODES = ("none", "layer", "row")
FLASH_ATTN = ("auto", "on", "off")
POOLINGS = ("auto", "none", "mean", "cls", "last")
MAX_SEQUENCE_IDS = 256
"""llama.cpp's LLAMA_MAX_SEQ: more sequence ids than this do not exist in one context."""
PLAIN_CELLS, PLAIN_SEQUENCES, PLAIN_BATCH = 8192, 32, 512
"""What n_ctx, n_seq_max, n_batch and n_ubatch are where memory is no question."""
SEPARATE_LENGTH = 2048
"""KV cells of each request that has its own, where neither their number nor its longest length is given."""
INVARIANT_SEQUENCES = 16
INVARIANT_BATCH = 63
"""llama.cpp's attention on the CPU goes over to another kernel at 64 tokens (GGML_FA_TILE_Q)."""
PLAIN_ADAPTERS = 4
"""LoRA adapters at the same time, where memory is no question."""
CELLS_PER_SEQUENCE = 256
"""Where there are fewer KV cells than this for each request, fewer requests run at the same time."""


@dataclass(frozen=True, slots=True)
class Options:
    n_ctx: int = 0
    """KV cache cells of all running and cached sequences together; 0: picked by the free memory."""
    kv_unified: bool = True
    """One KV cache for all; false: n_ctx / n_seq_max cells for each request, faster for many streams of a small model on CPU."""
    n_ctx_seq: int = 0
    """Longest prompt plus answer of one request, in tokens; 0: what the model was trained for, as far as KV cells allow."""
    n_seq_max: int = 0
    """Requests that run at the same time (1-128), further ones wait; 0: picked, 32 unless KV cells are few."""
    max_waiting: int = 256
    """Requests that may wait; further ones are answered 429."""
    n_batch: int = 0
    """Tokens of one step: each decoding request's next one, then prompt chunks up to this many; 0: picked, 512 unless memory is short."""
    n_ubatch: int = 0
    """Tokens that go through the graph at once, at most n_batch; 0: picked, as n_batch up to 512."""
    n_threads: int = 0
    """CPU threads for decoding; 0: one per physical core that this process may use."""
    n_threads_batch: int = 0
    """CPU threads for steps that hold prompt chunks; 0: as n_threads."""
    n_gpu_layers: int = -1
    """Layers kept on the GPU; -1: as many as fit there, 0: none. A number is refused where there is no GPU backend."""
    main_gpu: int = 0
    """The GPU used when split_mode is none."""
    split_mode: str = "layer"
    """How a model is spread over GPUs: none, layer or row."""
    tensor_split: tuple[float, ...] = ()
    """Share of the model on each GPU, for example 3,1; empty: by free memory."""
    flash_attn: str = "auto"
    """Flash attention: auto, on or off. A quantised V cache needs it."""
    cache_type_k: str = "f16"
    """Type of the K cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl."""
    cache_type_v: str = "f16"
    """Type of the V cache, as cache_type_k."""
    prefix_cache: bool = True
    """Keep finished sequences and reuse the longest common prefix of later prompts."""
    prefix_cache_cells: int = 0
    """KV cells that finished sequences may keep; 0: as many as lengthen a step by 7.5 % (780 for the demo, 26,000 for 8B)."""
    batch_invariant: bool = False
    """Answer with the same bits whatever else runs, on CPU with F32, F16, BF16 or Q8_0 weights; implies kv_unified: false."""
    max_adapters: int = 0
    """LoRA adapters loaded at the same time (1-64); 0: picked, 4 unless memory is short."""
    use_mmap: bool = True
    """Map the model file instead of reading it."""
    use_mlock: bool = False
    """Keep the model in memory, never swapped."""
    chat_template: str = ""
    """File with a Jinja chat template to use instead of the model's own."""
    pooling: str = "auto"
    """Serve embeddings, a text's hidden states made one vector by mean, cls or last; none: generate; auto: as the model's head says."""

    def __post_init__(self) -> None:
        check_all(_checks(self))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Options:
        """Build from a YAML mapping.

        Raises OptionsError naming every unknown key (with the nearest known one), wrong type and value out of range.
        """
        return optionschema.read(cls, mapping)

    @property
    def num_adapter_slots(self) -> int:
        """LoRA adapters that may be loaded at the same time."""
        return self.max_adapters or PLAIN_ADAPTERS

    @property
    def has_separate_caches(self) -> bool:
        """Whether each request has KV cells of its own, which no other can take."""
        return self.batch_invariant or not self.kv_unified

    def settled(self, cells: int = 0, batch: int = PLAIN_BATCH) -> Options:
        """With every size that is open filled in: `cells` (0: as usual) for n_ctx, `batch` for n_batch and n_ubatch; more if the others
        need it.
        """
        if self.batch_invariant:
            return self._settled_invariant()
        most = self.n_batch or PLAIN_SEQUENCES
        n_ctx = self.n_ctx or max(cells or PLAIN_CELLS, self.n_ctx_seq, self.prefix_cache_cells)
        least_each = CELLS_PER_SEQUENCE
        if not self.kv_unified:
            wanted = (self.n_seq_max or min(PLAIN_SEQUENCES, most)) * (self.n_ctx_seq or SEPARATE_LENGTH)
            n_ctx = self.n_ctx or max(cells or wanted, self.n_ctx_seq * max(self.n_seq_max, 1))
            least_each = max(least_each, self.n_ctx_seq)
        n_seq_max = self.n_seq_max or min(PLAIN_SEQUENCES, max(1, n_ctx // least_each), most)
        n_batch = self.n_batch or max(batch, n_seq_max, self.n_ubatch)
        n_ubatch = self.n_ubatch or min(batch, n_batch)
        return dataclasses.replace(self, n_ctx=n_ctx, n_seq_max=n_seq_max, n_batch=n_batch, n_ubatch=n_ubatch)

    def _settled_invariant(self) -> Options:
        """With steps small enough for the kernels that every token can share."""
        n_seq_max = self.n_seq_max or INVARIANT_SEQUENCES
        n_ctx = self.n_ctx or n_seq_max * (self.n_ctx_seq or SEPARATE_LENGTH)
        n_batch = self.n_batch or INVARIANT_BATCH
        n_ubatch = self.n_ubatch or n_batch
        return dataclasses.replace(
            self, n_gpu_layers=0, n_ctx=n_ctx, n_seq_max=n_seq_max, n_batch=n_batch, n_ubatch=n_ubatch
        )

    def to_argv(self) -> list[str]:
        """The flags that differ from the defaults, as `--n-ctx 4096 ...`."""
        return optionschema.to_argv(self)


def option_docs() -> dict[str, str]:
    """Help text of every option."""
    return optionschema.docs_of(Options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one `--kebab-case` flag per option to `parser`; values stay strings until `from_args` checks them."""
    optionschema.add_arguments(parser, Options)


def from_args(args: argparse.Namespace) -> Options:
    """The options named on the command line. Raises OptionsError."""
    return optionschema.from_args(Options, args)


def _checks(options: Options) -> Iterator[Check]:
    yield from _sizes(options)
    yield from _invariance(options)
    yield from _machine(options)
    yield from _words(options)


def _sizes(options: Options) -> Iterator[Check]:
    n_ctx, n_batch, n_seq_max = options.n_ctx, options.n_batch, options.n_seq_max
    cells, limit = options.prefix_cache_cells, MAX_SEQUENCE_IDS // 2
    longest = n_ctx // max(n_seq_max, 1) if options.has_separate_caches else n_ctx
    yield n_ctx == 0 or n_ctx >= 256, f"n_ctx: must be at least 256, got {n_ctx}"
    yield options.n_ctx_seq >= 0, f"n_ctx_seq: must be 0 or more, got {options.n_ctx_seq}"
    yield (
        not n_ctx or options.n_ctx_seq <= n_ctx,
        f"n_ctx_seq: one request ({options.n_ctx_seq}) cannot be longer than the whole cache (n_ctx: {n_ctx})",
    )
    yield (
        not n_ctx or not longest < options.n_ctx_seq <= n_ctx,
        f"n_ctx_seq: without kv_unified one request ({options.n_ctx_seq}) cannot be longer than its share, "
        f"n_ctx / n_seq_max ({longest})",
    )
    yield (
        not cells or not options.has_separate_caches,
        "prefix_cache_cells: only with kv_unified; without it each request keeps its own cells",
    )
    yield 0 <= cells <= (n_ctx or cells), f"prefix_cache_cells: must be 0 to n_ctx ({n_ctx}), got {cells}"
    yield 0 <= options.max_adapters <= 64, f"max_adapters: must be 0 to 64, got {options.max_adapters}"
    yield options.prefix_cache or not cells, f"prefix_cache_cells: {cells} cells, but prefix_cache is off"
    yield 0 <= n_seq_max <= limit, f"n_seq_max: must be 0 to {limit}, got {n_seq_max}"
    yield options.max_waiting >= 0, f"max_waiting: must be 0 or more, got {options.max_waiting}"
    yield n_batch >= 0, f"n_batch: must be 0 or more, got {n_batch}"
    yield (
        not n_batch or n_batch >= n_seq_max,
        f"n_batch: must hold one token of every running request (n_seq_max: {n_seq_max}), got {n_batch}",
    )
    yield (
        0 <= options.n_ubatch <= (n_batch or options.n_ubatch),
        f"n_ubatch: must be 0 to n_batch ({n_batch}), got {options.n_ubatch}",
    )


def _invariance(options: Options) -> Iterator[Check]:
    if not options.batch_invariant:
        return
    for name in ("n_batch", "n_ubatch", "n_seq_max"):
        value = getattr(options, name)
        yield value <= INVARIANT_BATCH, f"{name}: at most {INVARIANT_BATCH} with batch_invariant, got {value}"
    yield options.n_gpu_layers <= 0, "batch_invariant: on the CPU only, but n_gpu_layers asks for a GPU"


def _machine(options: Options) -> Iterator[Check]:
    for name in ("n_threads", "n_threads_batch"):
        value = getattr(options, name)
        yield 0 <= value <= 512, f"{name}: must be 0 to 512, got {value}"
    yield options.n_gpu_layers >= -1, f"n_gpu_layers: must be -1 or more, got {options.n_gpu_layers}"
    yield options.main_gpu >= 0, f"main_gpu: must be 0 or more, got {options.main_gpu}"
    is_alone = options.split_mode == "none"
    yield options.main_gpu == 0 or is_alone, f"main_gpu: only with split_mode none, not {options.split_mode}"
    yield (
        not options.tensor_split or not is_alone,
        "tensor_split: with split_mode none the whole model is on main_gpu",
    )
    yield all(share >= 0 for share in options.tensor_split), "tensor_split: shares must not be negative"


def _words(options: Options) -> Iterator[Check]:
    for name, known in (
        ("split_mode", SPLIT_MODES),
        ("flash_attn", FLASH_ATTN),
        ("cache_type_k", CACHE_TYPES),
        ("cache_type_v", CACHE_TYPES),
        ("pooling", POOLINGS),
    ):
        value = getattr(options, name)
        text = f"{name}: must be one of {', '.join(known)}, got {value!r}"
        if (name, value) == ("pooling", "rank"):
            text = (
                "pooling: rank scores pairs of texts, which is not served; embeddings are pooled by mean, cls or last"
            )
        yield value in known, text
    is_pooled = options.pooling in ("mean", "cls", "last")
    yield not (is_pooled and options.max_adapters), "max_adapters: embeddings are computed without LoRA adapters"
    is_plain_v = options.cache_type_v in ("f32", "f16", "bf16")
    yield (
        is_plain_v or options.flash_attn != "off",
        f"cache_type_v: {options.cache_type_v} needs flash attention, which flash_attn: off forbids",
    )
    template = options.chat_template
    yield not template or Path(template).is_file(), f"chat_template: no such file: {template}"
