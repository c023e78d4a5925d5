"""One KV cache and the batch that fills it."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.batch import Batch, check_code
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.library import forget_log, log_reason
from backends.llamacpp.binding.model import Model, Tokens
from backends.llamacpp.options import Options
from backends.llamacpp.sizes import GGML_TYPES, cells_per_sequence, num_outputs, num_sequence_ids

Logits = NDArray[np.float32]

_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}


class Context:
    """One KV cache and the batch that fills it. Used by the engine thread only.

    `num_cells` KV cells are there for all sequences, `max_length` for one; sequence ids are 0 <= id < `num_sequence_ids`.
    """

    def __init__(self, model: Model, options: Options, *, num_threads: int, num_threads_batch: int) -> None:
        forget_log()
        self.model = model
        self.num_sequence_ids = num_sequence_ids(options)
        self.max_outputs = num_outputs(options)
        self.num_outputs = 0
        self._logits: Logits = np.empty((0, model.n_vocab), dtype=np.float32)
        self._logits_at = (0, 0)
        params = context_params(options, self.num_sequence_ids, self.max_outputs)
        params.n_threads, params.n_threads_batch = num_threads, num_threads_batch
        self.pointer = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ModelError(f"cannot create a context (n_ctx {options.n_ctx}): {log_reason()}")
        self._memory = C.llama_get_memory(self.pointer)
        if not self._memory:
            self.close()
            raise ModelError("this model has no KV cache: it is an encoder, which generates no text")
        self.num_cells = int(C.llama_n_ctx(self.pointer))
        self.max_length = int(C.llama_n_ctx_seq(self.pointer))
        """Cells that one sequence can have."""
        self._batch = Batch(int(C.llama_n_batch(self.pointer)))
        self.max_tokens = self._batch.max_tokens

    def close(self) -> None:
        """Free the context."""
        if self.pointer:
            C.llama_free(self.pointer)
            self.pointer = None

    def decode(self, tokens: Tokens, positions: Tokens, sequence_ids: Tokens, wants_logits: NDArray[np.int8]) -> None:
        """Run one step over n tokens (all arrays of shape [n]).

        Raises CacheFull, DecodeAborted or DecodeError (see `binding.errors`).
        """
        batch = self._batch.fill(tokens, positions, sequence_ids, wants_logits)
        self.num_outputs = int(np.count_nonzero(wants_logits))
        check_code(C.llama_decode(self.pointer, batch), len(tokens))

    def logits(self) -> Logits:
        """The step's logits, shape [num_outputs, n_vocab], rows in batch order. A writable view until the next decode."""
        address = ctypes.addressof(C.llama_get_logits(self.pointer).contents)
        key = (address, self.num_outputs)
        # llama.cpp keeps its buffer from step to step; making the view anew costs 30 us.
        if key != self._logits_at:
            block = (ctypes.c_float * (self.num_outputs * self.model.n_vocab)).from_address(address)
            rows = np.frombuffer(memoryview(block), dtype=np.float32)
            self._logits, self._logits_at = rows.reshape(self.num_outputs, self.model.n_vocab), key
        return self._logits

    def remove(self, sequence_id: int, start: int = 0, end: int = -1) -> bool:
        """Drop positions [start, end) of a sequence (-1: to its end). False when the memory cannot be cut there."""
        return bool(C.llama_memory_seq_rm(self._memory, sequence_id, start, end))

    def share(self, source: int, target: int, length: int) -> None:
        """Make `target` begin with the first `length` positions of `source`: the same cells, nothing is copied."""
        C.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Make `target` begin with copies of the first `length` positions of `source`, where each has a cache of its own."""
        # Only whole caches are copied: what is too much is dropped again.
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.remove(target, length)


def context_params(options: Options, num_ids: int, max_outputs: int) -> Any:
    """`max_outputs` 0: as many rows as a batch has tokens."""
    params = C.llama_context_default_params()
    params.n_ctx = options.n_ctx
    if options.has_separate_caches:
        params.n_ctx = cells_per_sequence(options) * num_ids
    params.n_batch = options.n_batch
    params.n_ubatch = options.n_ubatch
    params.n_seq_max = num_ids
    params.n_outputs_max = max_outputs
    params.n_outputs_max_per_seq = max_outputs
    params.flash_attn_type = _FLASH_ATTN[options.flash_attn]
    params.type_k = GGML_TYPES[options.cache_type_k]
    params.type_v = GGML_TYPES[options.cache_type_v]
    params.kv_unified = not options.has_separate_caches
    params.offload_kqv = options.n_gpu_layers != 0
    params.no_perf = True
    return params
