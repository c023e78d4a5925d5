"""Options of a vLLM engine: one frozen schema, read from YAML, written as vLLM's own flags by `argv`.

Every attribute's docstring is its help text. What is left out stays as vLLM decides, unless its help says otherwise. What one value
forbids another, `rules` says; what the installed version lacks, `argv` and `installed`. Importing this module loads neither vllm nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from backends import optionschema
from backends.optionschema import OptionsError, check_all
from backends.vllm import rules, spellings

GPU_MEMORY_UTILIZATION = 0.9
CPU_KV_CACHE_GIB = 4
LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder block, which adapters are usually trained on."""
REFUSED_BESIDE_SPECULATION = ("min_p", "logit_bias")
"""vLLM's SamplingParams._validate_spec_decode answers them with 400."""


@dataclass(frozen=True, slots=True)
class Compilation:
    mode: int | None = None
    """How the model is compiled: 0 not at all, 1 torch.compile, 2 one Dynamo trace, 3 vLLM's own piecewise compilation."""
    cudagraph_mode: str = ""
    """CUDA graphs: NONE, PIECEWISE, FULL, FULL_DECODE_ONLY or FULL_AND_PIECEWISE."""
    cudagraph_capture_sizes: tuple[int, ...] = ()
    """Batch sizes, in tokens, for which CUDA graphs are captured; fewer of them start faster."""
    max_cudagraph_capture_size: int | None = None
    """The largest batch, in tokens, for which a CUDA graph is captured."""

    def __post_init__(self) -> None:
        check_all(rules.of_compilation(self))


@dataclass(frozen=True, slots=True)
class Speculative:
    method: str = ""
    """Who proposes draft tokens: ngram, draft_model, eagle, eagle3, mtp (the model's own heads) or suffix."""
    model: str = ""
    """Folder of the draft model, EAGLE head or MTP weights; `demo`: the bundled draft of the demo model."""
    num_speculative_tokens: int | None = None
    """Draft tokens of one step; null: as the draft's own configuration says (mtp), or the depth of the tree (suffix)."""
    num_speculative_tokens_per_batch_size: tuple[tuple[int, int, int], ...] = ()
    """Depth by running requests: rows of [first, last, depth], the first from 1 on; a depth of 0 turns speculation off."""
    schedule: str = "measured"
    """measured: the depth per batch size that `forgegate engines tune` found, where none is given; always: at every batch size."""
    prompt_lookup_max: int | None = None
    """Longest ngram that is looked up in the prompt (ngram)."""
    prompt_lookup_min: int | None = None
    """Shortest ngram that is looked up in the prompt (ngram)."""
    draft_tensor_parallel_size: int | None = None
    """GPUs that the draft is spread over: 1, or as many as the model."""
    draft_sample_method: str = ""
    """How the draft picks its tokens: greedy or probabilistic."""
    use_heterogeneous_vocab: bool = False
    """Take a draft with another tokenizer, and propose only tokens that both have (draft_model)."""
    parallel_drafting: bool = False
    """Draft all tokens of a step in one pass; the draft must have been trained for it (PARD: `pard_token` in its config.json)."""
    rejection_sample_method: str = ""
    """How draft tokens are accepted: standard, block, or synthetic (accepted at given rates, for measurements only)."""
    synthetic_acceptance_rates: tuple[float, ...] = ()
    """Share of steps in which the first 1, 2, ... draft tokens are all accepted (synthetic)."""
    suffix_decoding_max_tree_depth: int | None = None
    """Longest match plus proposal, in tokens (suffix)."""
    suffix_decoding_max_cached_requests: int | None = None
    """Past answers that are kept to propose from; 0: none (suffix)."""
    suffix_decoding_max_spec_factor: float | None = None
    """Draft tokens per token of the match (suffix)."""
    suffix_decoding_min_token_prob: float | None = None
    """Least estimated probability of a token that is proposed, 0 to 1 (suffix)."""

    def __post_init__(self) -> None:
        check_all(rules.of_speculative(self))

    @property
    def is_draft_model(self) -> bool:
        """Whether a whole language model proposes, with a tokenizer that must be the target's."""
        return self.method == "draft_model"


@dataclass(frozen=True, slots=True)
class Lora:
    max_loras: int = 4
    """Adapters that requests of one batch may use."""
    max_rank: int = 16
    """Highest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512; memory for it is set aside for every slot."""
    max_cpu_loras: int | None = None
    """Adapters that are loaded at the same time, those beyond max_loras in RAM; null: as max_loras."""
    target_modules: tuple[str, ...] = LINEAR_MODULES
    """Layers that adapters may change; an adapter that changes another one is refused."""
    fully_sharded: bool = False
    """With tensor parallelism: spread all of the adapters' computation over the GPUs, not half of it."""
    dtype: str = "auto"
    """Type of the adapters' weights: auto (the model's), float16 or bfloat16."""

    def __post_init__(self) -> None:
        check_all(rules.of_lora(self))

    @property
    def num_resident(self) -> int:
        """Adapters that are loaded at the same time."""
        return self.max_loras if self.max_cpu_loras is None else self.max_cpu_loras


@dataclass(frozen=True, slots=True)
class Options:
    dtype: str = "auto"
    """Type of weights and activations: auto (the checkpoint's), float16, bfloat16 or float32."""
    quantization: str = ""
    """How weights are quantised (awq, gptq, fp8, ...); empty: as the checkpoint says."""
    max_model_len: int | None = None
    """Longest prompt plus answer of one request, in tokens; -1: as the memory allows; null: what the model was trained for."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory for this engine, 0 to 1; null: 0.9. It holds its weights and takes the rest as KV cache."""
    tensor_parallel_size: int = 1
    """GPUs that every layer is spread over."""
    pipeline_parallel_size: int = 1
    """Groups of GPUs that share the layers, one after the other."""
    data_parallel_size: int = 1
    """Copies of the model inside one engine; pools of several replicas are the usual way."""
    max_num_seqs: int | None = None
    """Requests that run at the same time; further ones wait."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step: each decoding request's next ones, then prompt chunks up to this many."""
    enable_prefix_caching: bool | None = None
    """Keep the KV cache of finished requests and reuse the longest common prefix of later prompts."""
    enable_chunked_prefill: bool | None = None
    """Split long prompts over several steps, so that they do not hold up running requests."""
    kv_cache_dtype: str = ""
    """Type of the KV cache: auto, fp8, fp8_e5m2, ...; half the size holds twice the tokens."""
    attention_backend: str = ""
    """Attention kernels: FLASH_ATTN, FLASHINFER, TRITON_ATTN, ...; empty: picked by vLLM."""
    enforce_eager: bool = False
    """Neither compile the model nor capture CUDA graphs: starts faster, answers slower."""
    optimization_level: int | None = None
    """0 to 3: from the fastest start to the fastest answers."""
    compilation: Compilation | None = None
    """What is compiled and captured, in detail."""
    sleep_mode: bool = False
    """Let the engine give its GPU memory back while it sleeps, and keep its process."""
    cpu_kv_cache_gib: int | None = None
    """KV cache in RAM, in GiB, of an engine on the CPU; null: 4."""
    speculative: Speculative | None = None
    """Speculative decoding: draft tokens are proposed cheaply, and checked by the model several at once."""
    lora: Lora | None = None
    """LoRA adapters (`lora: {}` for the defaults); null: none are served, and requests run a little faster."""
    chat_template: str = ""
    """File with a Jinja chat template to use instead of the model's own."""
    tool_call_parser: str = ""
    """Who reads tool calls out of answers (hermes, llama3_json, ...); it turns automatic tool choice on."""
    reasoning_parser: str = ""
    """Who reads reasoning out of answers (deepseek_r1, qwen3, ...)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    seed: int | None = None
    """Start of the random numbers."""
    load_format: str = ""
    """How weights are read (auto, safetensors, dummy, ...)."""
    tokenizer: str = ""
    """Folder with a tokenizer to use instead of the model's own."""
    runner: str = "auto"
    """auto, generate, or pooling (embeddings)."""
    convert: str = "auto"
    """Make a generating model one for pooling: auto, none, embed or classify."""
    extra_args: tuple[str, ...] = ()
    """Further flags of the installed vLLM, as words of a command line: ["--block-size", "32"]."""

    def __post_init__(self) -> None:
        check_all(rules.of_options(self))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Options:
        """Build from a YAML mapping; vLLM's own names and those of older versions are put where they belong.

        Raises OptionsError naming every unknown key (with the nearest known one, or what became of it), wrong type and value out of range.
        """
        found = spellings.translate(mapping)
        try:
            names = [field.name for field in fields(cls)]
            options = optionschema.read(cls, found.mapping, lambda key: spellings.unknown(key, names))
        except OptionsError as error:
            raise OptionsError(found.problems + error.problems) from None
        if found.problems:
            raise OptionsError(found.problems)
        return options

    @property
    def num_gpus(self) -> int:
        """GPUs of one engine, if it runs on GPUs."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    @property
    def gpu_share(self) -> float:
        """Share of each GPU's memory."""
        return GPU_MEMORY_UTILIZATION if self.gpu_memory_utilization is None else self.gpu_memory_utilization

    @property
    def cpu_kv_cache_bytes(self) -> int:
        """KV cache of an engine on the CPU."""
        return (CPU_KV_CACHE_GIB if self.cpu_kv_cache_gib is None else self.cpu_kv_cache_gib) << 30

    @property
    def num_adapter_slots(self) -> int:
        """LoRA adapters that may be loaded at the same time."""
        return self.lora.num_resident if self.lora else 0

    @property
    def refused_by_speculation(self) -> tuple[str, ...]:
        """Fields of requests that are answered with 400 because of speculation."""
        return REFUSED_BESIDE_SPECULATION if self.speculative else ()


def option_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with these engine options, one sentence each."""
    try:
        Options.from_mapping(options)
    except OptionsError as exc:
        return exc.problems
    return []
