"""What llama.cpp itself does, without HTTP and scheduler: tokens a second of prefill and decode, and how far from the roofline.

Cases are measured in turns, each once in every turn, in a context as the engine makes it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.demo import TARGET_DIR
from backends.errors import BackendError
from backends.llamacpp.binding.context import Context
from backends.llamacpp.binding.errors import BindingError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.convert import ensure_gguf
from backends.llamacpp.header import Header, read_parts
from backends.llamacpp.options import Options
from backends.llamacpp.threads import num_physical_cores
from benchmarks.environment import cpu_model
from benchmarks.roofline import Device, Floor, RooflineError, Shape, Work, floor, of_cpu, of_gpu

DEMO = "demo"
CHUNK, STEPS = 512, 16
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
FIRST_ID = 300
"""Ids below are kept for bytes and control tokens."""


class MicroError(RuntimeError):
    """The model cannot be measured so; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured: prefill of `num_new` tokens (batch 1), or steps of one token for each of `batch` sequences."""

    kind: str
    """`prefill` or `decode`."""
    batch: int
    context: int
    """Tokens that each sequence has before."""
    num_new: int = 1

    @property
    def label(self) -> str:
        """For people."""
        if self.kind == "prefill":
            return f"prefill of {self.num_new} after {self.context}"
        return f"decode, batch {self.batch}, after {self.context}"

    @property
    def length(self) -> int:
        """Of a sequence at the end."""
        return self.context + (self.num_new if self.kind == "prefill" else STEPS)

    @property
    def num_tokens(self) -> int:
        """That one measurement computes."""
        return self.num_new if self.kind == "prefill" else self.batch * STEPS


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    cases: tuple[Case, ...]
    repeats: int
    num_threads: int
    num_gpu_layers: int = 0
    is_unified: bool = True

    @property
    def options(self) -> Options:
        """Of a context with room for the largest case."""
        batch, length = max(case.batch for case in self.cases), max(case.length for case in self.cases)
        return Options(
            n_ctx=max(256, length) * batch, n_seq_max=batch, n_batch=max(CHUNK, batch), n_ubatch=max(CHUNK, batch),
            kv_unified=self.is_unified, n_gpu_layers=self.num_gpu_layers, prefix_cache=False,
        ).settled()  # fmt: skip


def cases_of(prompts: Sequence[int], batches: Sequence[int], contexts: Sequence[int]) -> tuple[Case, ...]:
    """Every prompt, and every batch, at every context."""
    prefills = [Case("prefill", 1, context, length) for context in contexts for length in prompts]
    decodes = [Case("decode", batch, max(1, context)) for context in contexts for batch in batches]
    return (*prefills, *dict.fromkeys(decodes))


def work_of(case: Case) -> list[Work]:
    """The steps of a case: a prompt in chunks, or one token of each sequence at a time."""
    if case.kind == "decode":
        return [Work(case.batch, case.batch * (case.context + step), case.batch) for step in range(STEPS)]
    works = []
    for begin in range(0, case.num_new, CHUNK):
        count = min(CHUNK, case.num_new - begin)
        seen = sum(case.context + begin + place for place in range(count))
        works.append(Work(count, seen, 1))
    return works


def floor_of(case: Case, shape: Shape, device: Device) -> Floor:
    """Over all steps of the case."""
    floors = [floor(shape, work, device) for work in work_of(case)]
    return Floor(sum(each.memory_s for each in floors), sum(each.compute_s for each in floors))


def measure(model: Path, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """The result, JSON-able. Raises MicroError."""
    try:
        with _opened(model, plan) as context:
            found = _rates(context, plan, say)
            shape, description = shape_of(context.model, read_parts(model)), context.model.description
        device = _device(plan, shape)
    except (BindingError, BackendError, RooflineError) as exc:
        raise MicroError(str(exc)) from exc
    return {
        "model": description, "device": {"name": device.name, "bytes_per_s": device.bytes_per_s, "flops": device.flops},
        "cases": [_row(case, rates, floor_of(case, shape, device)) for case, rates in found.items()],
    }  # fmt: skip


def _device(plan: Plan, shape: Shape) -> Device:
    if plan.num_gpu_layers:
        return of_gpu(shape.weight_bytes)
    return of_cpu(plan.num_threads, shape.weight_bytes, cpu_model())


def _rates(context: Context, plan: Plan, say: Callable[[str], None]) -> dict[Case, list[float]]:
    """Tokens a second of each case, turn by turn."""
    found: dict[Case, list[float]] = {case: [] for case in plan.cases}
    for turn in range(plan.repeats):
        for case in plan.cases if turn % 2 == 0 else reversed(plan.cases):
            found[case].append(case.num_tokens / _seconds(context, case))
            say(f"[{turn + 1}/{plan.repeats}] {case.label}: {found[case][-1]:,.0f} tok/s")
    return found


def _row(case: Case, rates: Sequence[float], least: Floor) -> dict[str, Any]:
    roof = case.num_tokens / least.seconds
    median = statistics.median(rates)
    return {
        "case": case.label, "kind": case.kind, "batch": case.batch, "context": case.context, "num_new": case.num_new,
        "tok_s": {"median": median, "min": min(rates), "max": max(rates)},
        "roofline_tok_s": roof, "share_of_roofline": median / roof, "bound": least.bound,
    }  # fmt: skip


def shape_of(model: Model, headers: Sequence[Header]) -> Shape:
    """From the file's header, or those of its parts."""
    prefix = model.metadata("general.architecture") or ""

    def number(name: str, default: int = 0) -> int:
        return int(model.metadata(f"{prefix}.{name}") or default)

    layers, heads = number("block_count"), number("attention.head_count")
    key = number("attention.key_length", number("embedding_length") // max(heads, 1))
    kv_heads = number("attention.head_count_kv", heads)
    body, head, num_unread = params_of(headers)
    return Shape(model.size_bytes - num_unread, body, head, 4 * layers * kv_heads * key, layers * heads * key)


def _num_layers(model: Model) -> int:
    return int(model.metadata(f"{model.metadata('general.architecture') or ''}.block_count") or 0)


def params_of(headers: Sequence[Header]) -> tuple[int, int, int]:
    """Parameters of the body and of the output head, and bytes of a table that is only looked up: the embedding, unless it is the head."""
    params = {tensor.name: math.prod(tensor.shape) for header in headers for tensor in header.tensors}
    num_bytes = {name: size for header in headers for name, size in header.tensor_bytes.items()}
    embedding, head = params.pop(_EMBEDDING, 0), params.pop(_HEAD, 0)
    return sum(params.values()), head or embedding, num_bytes.get(_EMBEDDING, 0) if head else 0


def require_one_device(num_gpu_layers: int, num_layers: int) -> None:
    """Raises MicroError for layers on both: neither's peaks are a roof for the other. The output head counts as a layer."""
    if 0 < num_gpu_layers <= num_layers:
        raise MicroError(
            f"--gpu-layers {num_gpu_layers} of {num_layers + 1} leaves work on both devices, for which there is no roof: give 0 or -1"
        )


@contextmanager
def _opened(path: Path, plan: Plan) -> Iterator[Context]:
    model = Model(path, plan.options)
    try:
        require_one_device(plan.num_gpu_layers, _num_layers(model))
        longest = max(case.length for case in plan.cases)
        if not model.can_generate:
            raise MicroError(f"{path.name} generates no text: there is nothing to prefill or decode")
        if model.n_ctx_train and longest > model.n_ctx_train:
            raise MicroError(
                f"a case is {longest} tokens long, and {path.name} was made for {model.n_ctx_train}: lower --context or --prompt"
            )
        context = Context(model, plan.options, num_threads=plan.num_threads, num_threads_batch=plan.num_threads)
        try:
            yield context
        finally:
            context.close()
    finally:
        model.close()


def _seconds(context: Context, case: Case) -> float:
    for sequence in range(case.batch):
        context.remove(sequence)
        _prefill(context, sequence, 0, case.context)
    began_s = time.perf_counter()
    if case.kind == "prefill":
        _prefill(context, 0, case.context, case.num_new)
    else:
        for step in range(STEPS):
            _step(context, case.batch, case.context + step)
    took_s = time.perf_counter() - began_s
    for sequence in range(case.batch):
        context.remove(sequence)
    return took_s


def _prefill(context: Context, sequence: int, begin: int, count: int) -> None:
    for start in range(begin, begin + count, CHUNK):
        end = min(start + CHUNK, begin + count)
        positions = np.arange(start, end, dtype=np.int32)
        wants = np.zeros(end - start, dtype=np.int8)
        wants[-1] = 1
        context.decode(_ids(context, positions), positions, np.full(end - start, sequence, dtype=np.int32), wants)
        context.logits()  # waits for a GPU


def _step(context: Context, batch: int, position: int) -> None:
    positions = np.full(batch, position, dtype=np.int32)
    context.decode(_ids(context, positions), positions, np.arange(batch, dtype=np.int32), np.ones(batch, dtype=np.int8))
    context.logits()


def _ids(context: Context, positions: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    found: np.ndarray[Any, np.dtype[np.int32]] = FIRST_ID + positions * 37 % (context.model.n_vocab - FIRST_ID)
    return found.astype(np.int32)


def locate(model: str, cache: Path) -> Path:
    """A GGUF file; `demo` is made one in `cache`. Raises MicroError."""
    try:
        return ensure_gguf(TARGET_DIR, cache) if model == DEMO else Path(model)
    except BackendError as exc:
        raise MicroError(str(exc)) from exc


def threads(wanted: int) -> int:
    """0: one for each physical core, as the engine."""
    return wanted or num_physical_cores()
