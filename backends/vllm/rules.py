"""Which values vLLM's options may have, and which do not go together: what vLLM itself says a minute after its start. Pure.

Facts are those of vllm/config/*.py and vllm/engine/arg_utils.py, the same in 0.26 and 0.32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from backends.optionschema import Check

if TYPE_CHECKING:
    from backends.vllm.options import Compilation, Lora, Options, Speculative

DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
RUNNERS = ("auto", "generate", "pooling")
CONVERTS = ("auto", "none", "embed", "classify")
METHODS = ("ngram", "draft_model", "eagle", "eagle3", "mtp", "suffix")
DEPTH_KNOWN = ("mtp", "suffix")
"""Methods that say themselves how many draft tokens there are."""
WITHOUT_MODEL = ("ngram", "suffix")
PARALLEL = ("draft_model", "eagle", "eagle3")
SCHEDULES = ("measured", "always")
DRAFT_SAMPLING = ("greedy", "probabilistic")
REJECTION = ("standard", "block", "synthetic")
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LORA_DTYPES = ("auto", "float16", "bfloat16")
CUDAGRAPH_MODES = ("NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
_SUFFIX = "suffix_decoding_"


def of_options(options: Options) -> Iterator[Check]:
    yield _one_of("dtype", options.dtype, DTYPES)
    yield _one_of("runner", options.runner, RUNNERS)
    yield _one_of("convert", options.convert, CONVERTS)
    yield from _sizes(options)
    yield from _compiling(options)
    yield from _pooling(options)
    yield from _speculating(options)
    template = options.chat_template
    yield not template or Path(template).expanduser().is_file(), f"chat_template: no such file: {template}"
    tokenizer = options.tokenizer
    yield not tokenizer or Path(tokenizer).expanduser().is_dir(), f"tokenizer: no such folder: {tokenizer}"
    for name in (
        "quantization", "kv_cache_dtype", "attention_backend", "tool_call_parser", "reasoning_parser", "load_format",
        "tokenizer",
    ):  # fmt: skip
        value = getattr(options, name)
        yield not value.startswith("-"), f"{name}: must not begin with a dash, got {value!r}"


def of_compilation(compilation: Compilation) -> Iterator[Check]:
    mode, sizes, largest = (
        compilation.mode,
        compilation.cudagraph_capture_sizes,
        compilation.max_cudagraph_capture_size,
    )
    yield mode is None or 0 <= mode <= 3, f"mode: must be 0 to 3, got {mode}"
    if compilation.cudagraph_mode:
        yield _one_of("cudagraph_mode", compilation.cudagraph_mode, CUDAGRAPH_MODES)
    yield all(size > 0 for size in sizes), f"cudagraph_capture_sizes: must all be 1 or more, got {_listed(sizes)}"
    yield _at_least("max_cudagraph_capture_size", largest, 1)
    yield (
        largest is None or not sizes or max(sizes) == largest,
        f"max_cudagraph_capture_size: must be the largest of cudagraph_capture_sizes, or be left out, got {largest}",
    )
    has_graphs = bool(sizes) or largest is not None
    yield (
        not has_graphs or compilation.cudagraph_mode != "NONE",
        "cudagraph_capture_sizes: with cudagraph_mode: NONE no graphs are captured; leave one of them out",
    )


def of_lora(lora: Lora) -> Iterator[Check]:
    yield _at_least("max_loras", lora.max_loras, 1)
    higher = next((rank for rank in RANKS if rank >= lora.max_rank), RANKS[-1])
    yield (
        lora.max_rank in RANKS,
        f"max_rank: vLLM has slots of rank {_listed(RANKS)} only, got {lora.max_rank}; take {higher}",
    )
    yield (
        lora.max_cpu_loras is None or lora.max_cpu_loras >= lora.max_loras,
        f"max_cpu_loras: must be at least max_loras ({lora.max_loras}), got {lora.max_cpu_loras}",
    )
    yield bool(lora.target_modules), "target_modules: must name one layer or more, or be left out"
    bad = [name for name in lora.target_modules if not name or name.startswith("-")]
    yield not bad, f"target_modules: not the name of a layer: {', '.join(map(repr, bad))}"
    yield _one_of("dtype", lora.dtype, LORA_DTYPES)


def of_speculative(speculative: Speculative) -> Iterator[Check]:
    yield _one_of("method", speculative.method, METHODS)
    if speculative.method not in METHODS:
        return
    yield _one_of("schedule", speculative.schedule, SCHEDULES)
    yield from _draft(speculative)
    yield from _depth(speculative)
    yield from _acceptance(speculative)
    yield from _ngrams(speculative)
    yield from _suffixes(speculative)


def _draft(speculative: Speculative) -> Iterator[Check]:
    method, model = speculative.method, speculative.model
    has_draft = method not in WITHOUT_MODEL
    yield (
        bool(model) or method in (*WITHOUT_MODEL, "mtp"),
        f"model: {method} needs one: its folder",
    )
    yield has_draft or not model, f"model: {method} proposes without one; leave it out, or take method draft_model"
    yield not model.startswith("-"), f"model: must not begin with a dash, got {model!r}"
    yield _at_least("draft_tensor_parallel_size", speculative.draft_tensor_parallel_size, 1)
    yield (
        has_draft or speculative.draft_tensor_parallel_size is None,
        f"draft_tensor_parallel_size: {method} has no draft",
    )
    if speculative.draft_sample_method:
        yield _one_of("draft_sample_method", speculative.draft_sample_method, DRAFT_SAMPLING)
        yield has_draft, f"draft_sample_method: {method} has no draft"
    is_wide = speculative.use_heterogeneous_vocab
    yield not is_wide or method == "draft_model", f"use_heterogeneous_vocab: only with draft_model, not {method}"
    yield (
        not is_wide or speculative.draft_sample_method != "probabilistic",
        "use_heterogeneous_vocab: only with draft_sample_method: greedy",
    )
    yield (
        not speculative.parallel_drafting or method in PARALLEL,
        f"parallel_drafting: only with {', '.join(PARALLEL)}, not {method}",
    )


def _depth(speculative: Speculative) -> Iterator[Check]:
    depth, rows = speculative.num_speculative_tokens, speculative.num_speculative_tokens_per_batch_size
    yield (
        depth is not None or speculative.method in DEPTH_KNOWN,
        f"num_speculative_tokens: {speculative.method} needs it: how many draft tokens a step has, for example 4",
    )
    yield _at_least("num_speculative_tokens", depth, 1)
    yield from _rows(rows, depth)


def _rows(rows: tuple[tuple[int, int, int], ...], depth: int | None) -> Iterator[Check]:
    name = "num_speculative_tokens_per_batch_size"
    yield not rows or rows[0][0] == 1, f"{name}: the first row must begin at batch size 1, got {_row(rows)}"
    previous = 0
    for first, last, tokens in rows:
        row = f"[{first}, {last}, {tokens}]"
        yield first <= last, f"{name}: {row} ends before it begins"
        yield first > previous, f"{name}: {row} begins at or before {previous}, where the row before it ends"
        yield tokens >= 0, f"{name}: {row} has a depth below 0"
        yield (
            depth is None or tokens <= depth,
            f"{name}: {row} is deeper than num_speculative_tokens ({depth})",
        )
        previous = max(previous, last)


def _row(rows: tuple[tuple[int, int, int], ...]) -> str:
    return str(list(rows[0])) if rows else "none"


def _acceptance(speculative: Speculative) -> Iterator[Check]:
    method, rates = speculative.rejection_sample_method, speculative.synthetic_acceptance_rates
    if method:
        yield _one_of("rejection_sample_method", method, REJECTION)
    name, shown = "synthetic_acceptance_rates", _listed(rates)
    is_synthetic, depth = method == "synthetic", speculative.num_speculative_tokens
    yield is_synthetic or not rates, f"{name}: only with rejection_sample_method: synthetic"
    yield not is_synthetic or bool(rates), f"{name}: rejection_sample_method: synthetic needs them, one per draft token"
    yield (
        not rates or depth is None or len(rates) == depth,
        f"{name}: must be {depth} numbers, one per draft token, got {shown}",
    )
    yield all(0 <= rate <= 1 for rate in rates), f"{name}: must be 0 to 1, got {shown}"
    yield list(rates) == sorted(rates, reverse=True), f"{name}: must not rise from one token to the next, got {shown}"


def _ngrams(speculative: Speculative) -> Iterator[Check]:
    longest, shortest = speculative.prompt_lookup_max, speculative.prompt_lookup_min
    for name, value in (("prompt_lookup_max", longest), ("prompt_lookup_min", shortest)):
        yield _at_least(name, value, 1)
        yield value is None or speculative.method == "ngram", f"{name}: only with ngram, not {speculative.method}"
    yield (
        longest is None or shortest is None or shortest <= longest,
        f"prompt_lookup_min: must be at most prompt_lookup_max ({longest}), got {shortest}",
    )


def _suffixes(speculative: Speculative) -> Iterator[Check]:
    for end, least in (
        ("max_tree_depth", 1),
        ("max_cached_requests", 0),
        ("max_spec_factor", 0),
        ("min_token_prob", 0),
    ):
        name = _SUFFIX + end
        value = getattr(speculative, name)
        yield _at_least(name, value, least)
        yield value is None or speculative.method == "suffix", f"{name}: only with suffix, not {speculative.method}"
    likely = speculative.suffix_decoding_min_token_prob
    yield likely is None or likely <= 1, f"{_SUFFIX}min_token_prob: must be 0 to 1, got {likely}"


def _sizes(options: Options) -> Iterator[Check]:
    length, share = options.max_model_len, options.gpu_memory_utilization
    yield length is None or length == -1 or length >= 1, f"max_model_len: must be -1 or 1 and more, got {length}"
    yield share is None or 0 < share <= 1, f"gpu_memory_utilization: must be above 0 and at most 1, got {share}"
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        yield _at_least(name, getattr(options, name), 1)
    for name in ("max_num_seqs", "max_num_batched_tokens", "cpu_kv_cache_gib"):
        yield _at_least(name, getattr(options, name), 1)
    yield _at_least("seed", options.seed, 0)
    seqs, tokens = options.max_num_seqs, options.max_num_batched_tokens
    yield (
        seqs is None or tokens is None or tokens >= seqs,
        f"max_num_batched_tokens: must hold one token of every running request (max_num_seqs: {seqs}), got {tokens}",
    )
    yield (
        options.enable_chunked_prefill is not False or tokens is None or length is None or tokens >= length,
        f"max_num_batched_tokens: without chunked prefill it must hold a whole prompt (max_model_len: {length}), got {tokens}",
    )


def _compiling(options: Options) -> Iterator[Check]:
    level = options.optimization_level
    yield level is None or 0 <= level <= 3, f"optimization_level: must be 0 to 3, got {level}"
    for name, is_set in (("compilation", options.compilation is not None), ("optimization_level", bool(level))):
        yield not (is_set and options.enforce_eager), f"{name}: enforce_eager compiles nothing; leave one of them out"


def _pooling(options: Options) -> Iterator[Check]:
    is_pooling = options.runner == "pooling"
    yield (
        options.convert in ("auto", "none") or is_pooling,
        f"convert: {options.convert} is for runner: pooling, not {options.runner}",
    )
    for name in ("speculative", "lora"):
        yield (
            not is_pooling or getattr(options, name) is None,
            f"{name}: only where text is generated, not with runner: pooling",
        )


def _speculating(options: Options) -> Iterator[Check]:
    speculative = options.speculative
    if speculative is None:
        return
    spread, tensor = speculative.draft_tensor_parallel_size, options.tensor_parallel_size
    yield (
        spread in (None, 1, tensor),
        f"speculative.draft_tensor_parallel_size: must be 1 or tensor_parallel_size ({tensor}), got {spread}",
    )
    yield (
        not speculative.num_speculative_tokens_per_batch_size or options.data_parallel_size == 1,
        "speculative.num_speculative_tokens_per_batch_size: vLLM takes no notice of it with data_parallel_size above 1; "
        "take replicas instead",
    )
    seqs, tokens, depth = options.max_num_seqs, options.max_num_batched_tokens, speculative.num_speculative_tokens
    if options.lora is None or seqs is None or tokens is None or depth is None:
        return
    yield (
        tokens >= seqs * (depth + 1),
        "max_num_batched_tokens: with adapters and speculation it must hold the draft tokens of every running request, "
        f"max_num_seqs x (num_speculative_tokens + 1) = {seqs * (depth + 1)}, got {tokens}",
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> Check:
    return value in known, f"{name}: must be one of {', '.join(known)}, got {value!r}"


def _at_least(name: str, value: float | None, least: int) -> Check:
    return value is None or value >= least, f"{name}: must be {least} or more, got {value}"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
