"""Hidden states of texts, pooled to one vector each."""

from __future__ import annotations

import ctypes

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.batch import Batch, check_code
from backends.llamacpp.binding.context import context_params
from backends.llamacpp.binding.errors import DecodeError, ModelError
from backends.llamacpp.binding.library import forget_log, log_reason
from backends.llamacpp.binding.model import Model, Tokens
from backends.llamacpp.options import Options

Vector = NDArray[np.float32]

_POOLINGS = {"mean": 1, "cls": 2, "last": 3}


class EmbeddingContext:
    """A llama_context that pools. Used by the engine thread only.

    Sequence ids are 0 <= id < `num_sequence_ids`. Encoders have no memory of earlier batches: `num_cells` is 0 there.
    """

    def __init__(
        self, model: Model, options: Options, *, num_sequence_ids: int, num_threads: int, num_threads_batch: int
    ) -> None:
        """`options.pooling` is mean, cls or last. Raises ModelError."""
        if C.llama_model_has_encoder(model.pointer) and C.llama_model_has_decoder(model.pointer):
            raise ModelError("this model has an encoder and a decoder; embeddings of such models are not supported")
        forget_log()
        params = context_params(options, num_sequence_ids, 0)
        params.embeddings = True
        params.pooling_type = _POOLINGS[options.pooling]
        params.n_threads, params.n_threads_batch = num_threads, num_threads_batch
        # What is pooled must be computed in one piece: llama.cpp pools within a ubatch, and encoders stop the process beyond it.
        max_tokens = min(options.n_batch, options.n_ubatch, options.n_ctx)
        # llama.cpp tries its graph with equally long sequences, and stops the process where they do not fill a ubatch.
        params.n_batch = params.n_ubatch = -(-max_tokens // num_sequence_ids) * num_sequence_ids
        params.n_ctx = max(options.n_ctx, params.n_batch)
        self.pointer = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ModelError(f"cannot create a context (n_ctx {options.n_ctx}): {log_reason()}")
        self.num_sequence_ids = num_sequence_ids
        self.dimensions = int(C.llama_model_n_embd_out(model.pointer))
        self._memory = C.llama_get_memory(self.pointer)
        self._compute = C.llama_decode if C.llama_model_has_decoder(model.pointer) else C.llama_encode
        is_encoder = not self._memory or self._compute is C.llama_encode
        self.num_cells = 0 if is_encoder else int(C.llama_n_ctx(self.pointer))
        self.max_tokens = max_tokens
        self._batch = Batch(max_tokens)

    def close(self) -> None:
        """Free the context."""
        if self.pointer:
            C.llama_free(self.pointer)
            self.pointer = None

    def compute(self, tokens: Tokens, positions: Tokens, sequence_ids: Tokens) -> None:
        """Run one step over n <= max_tokens tokens (all arrays of shape [n]). Raises CacheFull, DecodeAborted or DecodeError."""
        batch = self._batch.fill(tokens, positions, sequence_ids, 1)
        check_code(self._compute(self.pointer, batch), len(tokens))

    def vector(self, sequence_id: int) -> Vector:
        """The pooled hidden state of a sequence of the last step, shape [dimensions], a copy. Raises DecodeError."""
        pointer = C.llama_get_embeddings_seq(self.pointer, sequence_id)
        if not pointer:
            raise DecodeError(-1)
        block = (ctypes.c_float * self.dimensions).from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(memoryview(block), dtype=np.float32).copy()

    def forget(self, sequence_ids: range) -> None:
        """Drop these sequences from the KV cache."""
        for sequence_id in sequence_ids if self.num_cells else ():
            C.llama_memory_seq_rm(self._memory, sequence_id, 0, -1)

    def forget_all(self) -> None:
        """Empty the KV cache."""
        if self.num_cells:
            C.llama_memory_clear(self._memory, False)
