"""What it costs llama.cpp to compute a step under another LoRA than the one before.

    python -m benchmarks.adapter_switch                            the demo model
    python -m benchmarks.adapter_switch --model FILE.gguf --rank 16

Random adapters of the given rank on every attention and feed-forward matrix are loaded, and one token is decoded for each
of 1, 8 and 32 sequences: by the base model, under one adapter, and with a change of adapter before every fourth step. The
cost of a change is what the step after it takes longer than the steps that follow. All columns are in microseconds, those
of the fastest tenth: other processes only ever make a step longer. The three ways take turns, so that a busy
machine strikes all of them. Last: loading and freeing an adapter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from backends.llamacpp.binding.adapter import Adapter, Applied
from backends.llamacpp.binding.context import Context
from backends.llamacpp.binding.model import Model
from backends.llamacpp.options import Options
from backends.llamacpp.threads import num_physical_cores

NUM_SEQUENCES = (1, 8, 32)
_TARGETS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_STEPS_PER_TURN = 4
_MAX_LENGTH = 256
"""Tokens of a sequence before it is begun anew, so that no cache fills up."""


@dataclass(frozen=True, slots=True)
class Row:
    """Lowest deciles in microseconds."""

    num_sequences: int
    base_us: float
    adapter_us: float
    after_switch_us: float
    following_us: float

    @property
    def switch_us(self) -> float:
        return self.after_switch_us - self.following_us


class Decoder:
    """Decodes one token for each of `num_sequences` at a time."""

    def __init__(self, context: Context, num_sequences: int) -> None:
        self._context = context
        self._ids = np.arange(num_sequences, dtype=np.int32)
        self._tokens = np.full(num_sequences, 300, dtype=np.int32)
        self._wants = np.ones(num_sequences, dtype=np.int8)
        self._position = 0

    def step_us(self) -> float:
        """The time of one step."""
        if self._position == _MAX_LENGTH:
            self.clear()
        positions = np.full(len(self._ids), self._position, dtype=np.int32)
        began_s = time.perf_counter()
        self._context.decode(self._tokens, positions, self._ids, self._wants)
        self._context.logits()
        self._position += 1
        return (time.perf_counter() - began_s) * 1e6

    def clear(self) -> None:
        """Begin every sequence anew."""
        for sequence_id in self._ids:
            self._context.remove(int(sequence_id))
        self._position = 0


def measure(context: Context, adapters: Sequence[Adapter], num_sequences: int, num_turns: int) -> Row:
    """Time the three ways, turn by turn."""
    applied, decoder = Applied(context), Decoder(context, num_sequences)
    base: list[float] = []
    one: list[float] = []
    first: list[float] = []
    rest: list[float] = []
    for turn in range(num_turns):
        for adapter, steady in ((None, base), (adapters[0], one)):
            applied.apply(adapter)
            decoder.step_us()
            steady += [decoder.step_us() for _ in range(_STEPS_PER_TURN)]
        for adapter in (adapters[1 + turn % 2], adapters[0]):
            applied.apply(adapter)
            first.append(decoder.step_us())
            rest += [decoder.step_us() for _ in range(_STEPS_PER_TURN - 1)]
    applied.apply(None)
    decoder.clear()
    return Row(num_sequences, *(statistics.quantiles(times, n=10)[0] for times in (base, one, first, rest)))


def write_adapter(model: Path, out: Path, rank: int, seed: int) -> None:
    """A GGUF LoRA of random F32 weights, small enough to change little."""
    reader = gguf.GGUFReader(model)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(out, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    random = np.random.default_rng(seed)
    for tensor in reader.tensors:
        if tensor.name.split(".")[-2] in _TARGETS:
            num_in, num_out = (int(size) for size in tensor.shape)
            for part, shape in (("a", (rank, num_in)), ("b", (num_out, rank))):
                values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.01)
                writer.add_tensor(f"{tensor.name}.lora_{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_times_ms(model: Model, path: Path, count: int) -> tuple[float, float]:
    """Medians of loading and freeing."""
    loads, frees = [], []
    for _ in range(count):
        began_s = time.perf_counter()
        adapter = Adapter(model, path)
        loaded_s = time.perf_counter()
        adapter.close()
        loads.append(loaded_s - began_s)
        frees.append(time.perf_counter() - loaded_s)
    return statistics.median(loads) * 1e3, statistics.median(frees) * 1e3


def run(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The lines of the report."""
    path = args.model or _demo_model(folder)
    files = [folder / f"{number}.gguf" for number in range(3)]
    for seed, file in enumerate(files):
        write_adapter(path, file, args.rank, seed)
    options = Options(n_ctx=_MAX_LENGTH * max(NUM_SEQUENCES) + 512, n_seq_max=max(NUM_SEQUENCES)).settled()
    threads = args.threads or num_physical_cores()
    with closing(Model(path, options)) as model:
        with closing(Context(model, options, num_threads=threads, num_threads_batch=threads)) as context:
            adapters = [Adapter(model, file) for file in files]
            size = files[0].stat().st_size / 1e6
            yield f"{model.description}, {threads} threads; adapters of rank {args.rank}, {size:.1f} MB each"
            yield ""
            yield "| sequences | base step | step under an adapter | step after a change | a change costs | in such steps |"
            yield "|---|---|---|---|---|---|"
            for num_sequences in NUM_SEQUENCES:
                row = measure(context, adapters, num_sequences, args.turns)
                yield (
                    f"| {row.num_sequences} | {row.base_us:,.0f} | {row.adapter_us:,.0f} | {row.after_switch_us:,.0f} "
                    f"| {row.switch_us:,.0f} | {row.switch_us / row.adapter_us:.2f} |"
                )
            for adapter in adapters:
                adapter.close()
            load_ms, free_ms = load_times_ms(model, files[0], 10)
            yield ""
            yield f"loading from the page cache {load_ms:.2f} ms, freeing {free_ms:.2f} ms"


def _demo_model(folder: Path) -> Path:
    from backends.demo import TARGET_DIR
    from backends.llamacpp.convert import ensure_gguf

    return ensure_gguf(TARGET_DIR, folder)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapter_switch", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="GGUF file (default: the demo model)")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters (default: 16)")
    parser.add_argument("--turns", type=int, default=40, help="changes measured for each count, two each (default: 40)")
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for line in run(args, Path(folder)):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
