"""What a section is measured on: models, machine, sizes of its loads, and the engines' options for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import gpu_memory
from benchmarks.campaign import Plan
from benchmarks.claims.fleet import MODEL
from benchmarks.claims.models import DEMO, DEMO_DRAFT, DEMO_TARGET, config_of, token_bytes, weight_bytes
from benchmarks.engine_choice import CHOICES, LLAMACPP, Needs
from benchmarks.loads import ClosedLoad
from benchmarks.traffic.lengths import Length, LengthDraw, LognormalLength
from benchmarks.workload import Endpoint, PromptForm, Workload

GIB = 1 << 30
DEMO_VOCABULARY = 4000
START_S = 400.0
LEAST_CELLS = 256
"""Of a KV cache of llama.cpp."""
BESIDE_WEIGHTS_BYTES = 6 * GIB
"""What vLLM takes of a GPU beside weights and KV cache: activations of a step, graphs, the CUDA context."""
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the loads."""

    streams: int
    per_stream: int
    """Requests of each stream in one run."""
    input_tokens: int
    output_tokens: LognormalLength
    batch_sizes: tuple[int, ...]
    """That static batching is tried with."""
    levels: tuple[int, ...]
    """Streams at which speculation, adapters and the gateway are measured."""
    max_length: int
    """Of a request, which a contiguous KV cache reserves."""
    cells: int
    """Tokens that the KV cache of PagedAttention's section holds."""
    prefix: tuple[int, int]
    """Groups, and tokens that a group shares."""
    long_prompts: Length
    chunk: int
    """Prompt tokens of a step, where prefill is chunked."""
    contexts: tuple[int, ...]
    """Prompt lengths of the attention section."""


CPU = Scale(
    8, 6, 64, LognormalLength.of(64, 0.9, Length(8, 256)), (1, 4, 8, 16, 32), (1, 4, 8), 1024, 4096, (4, 512), Length(32, 1024), 128,
    (1024, 4096),
)  # fmt: skip
GPU = Scale(
    64, 4, 256, LognormalLength.of(128, 0.9, Length(16, 384)), (16, 32, 64, 128), (1, 16, 64), 4096, 32768, (8, 1024),
    Length(64, 8192), 1024, (4096, 32768),
)  # fmt: skip
TINY = replace(
    CPU, streams=4, per_stream=2, input_tokens=16, output_tokens=LognormalLength.of(12, 0.9, Length(4, 32)),
    batch_sizes=(2, 4), levels=(1, 2), max_length=256, cells=1024, prefix=(2, 128), long_prompts=Length(16, 256),
    contexts=(64, 128),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """The same for all sections."""

    model: str
    """`demo`, or a folder of safetensors."""
    draft: str
    engine: str
    python: Path | None
    """That runs the engines; None: forgegate finds it."""
    torch_python: str
    """That runs the scripts with torch."""
    workdir: Path
    has_gpu: bool
    scale: Scale
    seed: int
    repeats: int
    is_synthetic: bool
    """The weights are random: what they say is not checked."""

    @property
    def mark(self) -> str:
        """The same for turns that belong together; more of them may be asked for later."""
        return repr(replace(self, repeats=0))

    @property
    def start_s(self) -> float:
        """By when all engines of a section are up."""
        return START_S if self.has_gpu else max(120.0, 2 * CHOICES[self.engine].start_s)

    @property
    def model_dir(self) -> Path:
        """With the safetensors."""
        return DEMO_TARGET if self.model == DEMO else Path(self.model)

    @property
    def draft_dir(self) -> Path:
        """As `model_dir`."""
        return DEMO_DRAFT if self.draft == DEMO else Path(self.draft)

    @property
    def vocab_size(self) -> int:
        """Of ids for prompts."""
        return DEMO_VOCABULARY if self.model == DEMO else int(config_of(self.model_dir)["vocab_size"])

    @property
    def torch_words(self) -> list[str]:
        """What the scripts with torch are told."""
        where = ("cuda", "bfloat16") if self.has_gpu else ("cpu", "float32")
        return [str(self.model_dir), "--device", where[0], "--dtype", where[1]]

    @property
    def uncached(self) -> dict[str, Any]:
        """Options of an engine that computes every prompt anew: several contestants may ask it the same."""
        return self.prefix_cache(False)

    def prefix_cache(self, is_on: bool) -> dict[str, Any]:
        """The option by its engine's name."""
        return {"prefix_cache" if self.engine == LLAMACPP else "enable_prefix_caching": is_on}

    def folder(self, section: str) -> Path:
        """Of a section, in the work folder."""
        found = self.workdir / section
        found.mkdir(parents=True, exist_ok=True)
        return found

    def pool(self, streams: int, tokens: int, more: Mapping[str, Any] = _NO_OPTIONS, cells: int = 0) -> dict[str, Any]:
        """Of the gateway's configuration: room for so many requests of so many tokens, or for `cells` tokens in all."""
        needs = Needs(streams, tokens)
        if self.engine == LLAMACPP:
            options = CHOICES[LLAMACPP].options(needs) | {"n_ctx": max(LEAST_CELLS, cells or streams * tokens)}
        elif self.has_gpu:
            options = self._gpu_options(needs, cells or streams * tokens, bool(more.get("speculative")))
        else:
            options = CHOICES[self.engine].options(needs) | self._cpu_blocks(cells)
        pool: dict[str, Any] = {
            "engine": self.engine,
            "model": self.model,
            "replicas": 1,
            "options": {**options, **more},
        }
        if self.engine != LLAMACPP:
            pool["start_timeout_s"] = START_S
        return pool | ({"python": str(self.python)} if self.python else {})

    def workload(self, input_tokens: LengthDraw | None = None, output_tokens: LengthDraw | None = None) -> Workload:
        """Prompts of exactly so many random ids, answers as long as asked."""
        return Workload(
            MODEL, Endpoint.COMPLETIONS, input_tokens or Length(self.scale.input_tokens, self.scale.input_tokens),
            output_tokens or self.scale.output_tokens, PromptForm.IDS, self.vocab_size,
        )  # fmt: skip

    def plan(self, workload: Workload, seed: int = 0) -> Plan:
        """Another seed gives other prompts of the same lengths."""
        return Plan(
            workload,
            (self.scale.streams,),
            repeats=self.repeats,
            seed=1000 * self.seed + seed,
            is_synthetic=self.is_synthetic,
        )

    def load(self, streams: int) -> ClosedLoad:
        """Of one run; a single stream asks for eight answers at least."""
        return ClosedLoad(streams, max(8, self.scale.per_stream * streams))

    def _gpu_options(self, needs: Needs, cells: int, has_draft: bool) -> dict[str, Any]:
        """The KV cache's size is given, not found: what vLLM finds depends on who else starts at that moment."""
        models = [self.model_dir, *([self.draft_dir] if has_draft else [])]
        kv_bytes, weights = cells * sum(map(token_bytes, models)), sum(map(weight_bytes, models))
        found = gpu_memory.gpu()
        total = found.total_bytes if found else 80 * GIB
        share = min(0.9, (weights + kv_bytes + BESIDE_WEIGHTS_BYTES) / total)
        return {
            "max_model_len": needs.num_tokens, "max_num_seqs": needs.num_streams, "dtype": "bfloat16",
            "gpu_memory_utilization": round(share, 3), "compilation": {"cudagraph_capture_sizes": capture_sizes(needs.num_streams)},
            "extra_args": ["--kv-cache-memory-bytes", str(kv_bytes)],
        }  # fmt: skip

    @staticmethod
    def _cpu_blocks(cells: int) -> dict[str, Any]:
        return (
            {"extra_args": ["--block-size", str(BLOCK), "--num-gpu-blocks-override", str(cells // BLOCK)]}
            if cells
            else {}
        )


BLOCK = 32
"""Tokens of a KV block of vLLM on the CPU, where a cache of less than a GiB is wanted."""


def capture_sizes(streams: int, tokens_each: int = 1) -> list[int]:
    """Batches, in tokens, for which CUDA graphs are captured: powers of two of requests up to `streams`."""
    counts = [1 << power for power in range(streams.bit_length()) if 1 << power < streams]
    return [count * tokens_each for count in (*counts, streams)]
