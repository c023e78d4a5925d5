"""What goes into each weight matrix while a text is computed: sums of squares by column, by llama.cpp's evaluation callback.

llama.cpp asks before every node of its graph whether somebody wants to see it, and shows it once it is computed. A node `W x` has the
weights as its first source and the activations as its second, in F32: ne0 columns of W, then tokens. For experts (MUL_MAT_ID) the third
source says which expert each token's row went to.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.batch import Batch, check_code
from backends.llamacpp.binding.context import context_params
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.library import forget_log, ggml, log_reason
from backends.llamacpp.binding.model import Model, Tokens
from backends.llamacpp.options import Options

_DENSE, _EXPERTS = "MUL_MAT", "MUL_MAT_ID"
_F32 = 0
_MATRICES = "blk."
"""Embeddings and the output matrix are quantised without an importance matrix, as llama.cpp's own tool has it."""


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h, as far as it is read here; `_read` holds it against what ggml says itself."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@dataclass(slots=True)
class Sums:
    """Of one tensor: one weight matrix, or one for each expert."""

    squares: NDArray[np.float64]
    """Shape [matrices, columns]."""
    counts: NDArray[np.int64]
    """Rows that each has seen, shape [matrices]."""


class ActivationContext:
    """A context that adds up what goes into the matrices of `model`, in `sums` by their names. Raises ModelError."""

    def __init__(self, model: Model, num_tokens: int, num_threads: int) -> None:
        """At most `num_tokens` are computed at once."""
        forget_log()
        self.sums: dict[str, Sums] = {}
        self.failure: Exception | None = None
        self._callback = C.ggml_backend_sched_eval_callback(self._on_node)
        params = context_params(Options(n_ctx=num_tokens, n_batch=num_tokens, n_ubatch=num_tokens, n_seq_max=1), 1, 1)
        params.n_threads = params.n_threads_batch = num_threads
        params.cb_eval = self._callback
        self.pointer = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ModelError(f"cannot create a context (n_ctx {num_tokens}): {log_reason()}")
        self._memory = C.llama_get_memory(self.pointer)
        if not self._memory:
            self.close()
            raise ModelError(
                "this model is an encoder, which generates no text: what goes into its matrices is not added up here"
            )
        self._batch = Batch(num_tokens)

    def compute(self, tokens: Tokens) -> None:
        """Add what `tokens`, a text of its own, put into the matrices. Raises DecodeError, ModelError."""
        n = len(tokens)
        wants = np.zeros(n, dtype=np.int8)
        wants[-1] = 1
        batch = self._batch.fill(tokens, np.arange(n, dtype=np.int32), np.zeros(n, dtype=np.int32), wants)
        C.llama_memory_clear(self._memory, False)
        check_code(C.llama_decode(self.pointer, batch), n)
        if self.failure is not None:
            raise ModelError(f"its activations cannot be read: {self.failure}") from self.failure

    def close(self) -> None:
        """Free the context."""
        if self.pointer:
            C.llama_free(self.pointer)
            self.pointer = None

    def _on_node(self, address: int, is_asking: bool, _user: Any) -> bool:
        # An exception would be printed and swallowed by ctypes.
        try:
            node = _Tensor.from_address(address)
            if is_asking:
                return self._wants(address, node)
            self._add(address, node)
        except (ValueError, AttributeError, ModelError) as exc:
            self.failure = exc
            return False
        return True

    def _wants(self, address: int, node: _Tensor) -> bool:
        if _operation(address) not in (_DENSE, _EXPERTS):
            return False
        weights, activations = (_source(node, index) for index in (0, 1))
        return _matrix_name(weights).startswith(_MATRICES) and activations.type == _F32

    def _add(self, address: int, node: _Tensor) -> None:
        weights = _source(node, 0)
        x = _read(node.src[1], _source(node, 1), np.dtype(np.float32))
        columns, num_matrices = x.shape[-1], int(weights.ne[2])
        sums = self.sums.setdefault(
            _matrix_name(weights), Sums(np.zeros((num_matrices, columns)), np.zeros(num_matrices, dtype=np.int64))
        )
        if _operation(address) == _DENSE:
            each = x.reshape(x.shape[0], -1, num_matrices, x.shape[2], columns)
            sums.squares += np.square(each).sum(axis=(0, 1, 3), dtype=np.float64)
            sums.counts += each.size // (columns * num_matrices)
            return
        # ids: [tokens, used experts]; x: [tokens, used experts or 1, columns]
        ids = _read(node.src[2], _source(node, 2), np.dtype(np.int32))[0, 0]
        rows = x[0]
        for slot in range(ids.shape[1]):
            np.add.at(sums.squares, ids[:, slot], np.square(rows[:, slot % rows.shape[1]]))
            np.add.at(sums.counts, ids[:, slot], 1)


def _operation(address: int) -> str:
    return str(ggml("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p)(address).decode())


def _source(node: _Tensor, index: int) -> _Tensor:
    address = node.src[index]
    if not address:
        raise ValueError(f"a node without source {index}")
    return _Tensor.from_address(address)


def _matrix_name(weights: _Tensor) -> str:
    """A GPU's copy is named `CUDA0#blk.0.attn_k.weight#0`."""
    name = str(weights.name.decode())
    return name.split("#")[1] if "#" in name else name


def _read(address: int, tensor: _Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy of its values, slowest dimension first, from wherever they lie."""
    num_bytes = int(ggml("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)(address))
    buffer = np.empty(num_bytes, dtype=np.uint8)
    get = ggml("ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    get(address, buffer.ctypes.data, 0, num_bytes)
    shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
    needed = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + dtype.itemsize
    if needed != num_bytes or strides[-1] != dtype.itemsize:
        raise ValueError("llama.cpp's tensors are laid out in another way than this version knows")
    return np.ndarray(shape, dtype, buffer.data, strides=strides)
