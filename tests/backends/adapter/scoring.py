"""llama.cpp as a scorer, through its C API alone: log-probabilities of texts, with an adapter or without, batched in any way."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self

import llama_cpp.llama_cpp as C
import numpy as np

from backends.llamacpp.binding.batch import Batch
from backends.llamacpp.binding.library import initialise

FTYPES = {
    "F16": None,
    "Q8_0": C.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q5_K_M": C.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": C.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}
MAX_SEQUENCES = 16


def quantise(source: Path, out: Path, level: str) -> Path:
    """The GGUF at one of the levels of FTYPES; the source itself for F16."""
    ftype = FTYPES[level]
    if ftype is None:
        return source
    initialise()
    params = C.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 2
    assert C.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) == 0
    return out


@dataclass(frozen=True, slots=True)
class Setting:
    """What varies between loads of a real engine: how the work is cut, how many threads do it, who else is in the batch."""

    n_batch: int = 512
    n_ubatch: int = 512
    num_threads: int = 1
    num_sequences: int = 4
    """Texts in one batch."""
    is_flash: bool = True
    seed: int = 0
    """Of the order in which texts are scored."""


class Scorer:
    """One model and one context."""

    def __init__(self, path: Path, setting: Setting = Setting()) -> None:
        initialise()
        self.setting = setting
        self.model = C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())
        assert self.model, path
        self.n_vocab = int(C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.model)))
        self.context: Any = None
        self.use(setting)

    def use(self, setting: Setting) -> None:
        """A new context, as after an engine's restart with other options."""
        if self.context:
            C.llama_free(self.context)
        self.setting = setting
        params = C.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = 4096, MAX_SEQUENCES, True
        params.n_batch, params.n_ubatch = setting.n_batch, setting.n_ubatch
        params.n_threads = params.n_threads_batch = setting.num_threads
        params.flash_attn_type = (
            C.LLAMA_FLASH_ATTN_TYPE_ENABLED if setting.is_flash else C.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = C.llama_init_from_model(self.model, params)
        assert self.context

    def load(self, path: Path) -> Any:
        """An adapter, for `score`; freed with `free`."""
        adapter = C.llama_adapter_lora_init(self.model, str(path).encode())
        assert adapter, path
        return adapter

    def free(self, adapter: Any) -> None:
        self._apply(None, 1.0)
        C.llama_adapter_lora_free(adapter)

    def close(self) -> None:
        C.llama_free(self.context)
        C.llama_model_free(self.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _apply(self, adapter: Any, scale: float) -> None:
        adapters = (C.llama_adapter_lora_p_ctypes * 1)(adapter) if adapter else None
        scales = (ctypes.c_float * 1)(scale) if adapter else None
        assert C.llama_set_adapters_lora(self.context, adapters, 1 if adapter else 0, scales) == 0

    def score(self, texts: Sequence[Sequence[int]], adapter: Any = None, scale: float = 1.0) -> list[list[float]]:
        """Log-probability of each token of each text but its first."""
        self._apply(adapter, scale)
        order = list(range(len(texts)))
        Random(self.setting.seed).shuffle(order)
        found: dict[int, list[float]] = {}
        batch: list[int] = []
        for place in [*order, None]:
            is_full = len(batch) == self.setting.num_sequences
            if batch and (
                place is None or is_full or sum(len(texts[p]) for p in [*batch, place]) > self.setting.n_batch
            ):
                found.update(zip(batch, self._decode([texts[p] for p in batch]), strict=True))
                batch = []
            if place is not None:
                batch.append(place)
        return [found[place] for place in range(len(texts))]

    def _decode(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        tokens = np.concatenate([np.asarray(text, np.int32) for text in texts])
        positions = np.concatenate([np.arange(len(text), dtype=np.int32) for text in texts])
        ids = np.concatenate([np.full(len(text), number, np.int32) for number, text in enumerate(texts)])
        C.llama_memory_clear(C.llama_get_memory(self.context), True)
        batch = Batch(len(tokens))
        assert C.llama_decode(self.context, batch.fill(tokens, positions, ids, 1)) == 0
        pointer = C.llama_get_logits(self.context)
        logits = np.ctypeslib.as_array(pointer, (len(tokens), self.n_vocab))
        peak = logits.max(axis=1)
        normaliser = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        rows, begin = [], 0
        for text in texts:
            end = begin + len(text)
            chosen = logits[np.arange(begin, end - 1), tokens[begin + 1 : end]]
            rows.append((chosen - normaliser[begin : end - 1]).tolist())
            begin = end
        return rows
