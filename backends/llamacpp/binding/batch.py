"""The arrays that one call of llama_decode or llama_encode reads."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.errors import CacheFull, DecodeAborted, DecodeError
from backends.llamacpp.binding.model import Tokens


class Batch:
    """A llama_batch over numpy memory, so that a step is filled by slice assignment. `max_tokens` at most."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._tokens = np.zeros(max_tokens, dtype=np.int32)
        self._positions = np.zeros(max_tokens, dtype=np.int32)
        self._ids = np.zeros(max_tokens, dtype=np.int32)
        self._wants = np.zeros(max_tokens, dtype=np.int8)
        self._counts = np.ones(max_tokens, dtype=np.int32)
        base = self._ids.ctypes.data
        int32_pointer = ctypes.POINTER(ctypes.c_int32)
        addresses = (ctypes.c_void_p * max_tokens)(*(base + 4 * index for index in range(max_tokens)))
        self._id_pointers = addresses
        self._batch = C.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(int32_pointer),
            embd=None,
            pos=self._positions.ctypes.data_as(int32_pointer),
            n_seq_id=self._counts.ctypes.data_as(int32_pointer),
            seq_id=ctypes.cast(addresses, ctypes.POINTER(int32_pointer)),
            logits=self._wants.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(
        self, tokens: Tokens, positions: Tokens, sequence_ids: Tokens, wants_output: NDArray[np.int8] | int
    ) -> Any:
        """The llama_batch of n tokens (all arrays of shape [n]), valid until the next call."""
        n = len(tokens)
        self._tokens[:n] = tokens
        self._positions[:n] = positions
        self._ids[:n] = sequence_ids
        self._wants[:n] = wants_output
        self._batch.n_tokens = n
        return self._batch


def check_code(code: int, num_tokens: int) -> None:
    """What llama_decode returned. Raises CacheFull, DecodeAborted or DecodeError (see `binding.errors`)."""
    if code == 1:
        raise CacheFull(f"no KV cells for {num_tokens} tokens")
    if code == 2:
        raise DecodeAborted("llama_decode was aborted")
    if code != 0:
        raise DecodeError(code)
