"""llama.cpp's own quantiser. A call cannot be interrupted: whoever wants to stop it ends the process."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.errors import QuantizeError
from backends.llamacpp.binding.library import initialise

BUFFER_BYTES = 1 << 30
"""Rows of a matrix that are worked on at once; llama.cpp would take eight times as much, and be no faster."""
TellLine = Callable[[str], None]
MAX_TEXT_BYTES = 127
"""Of a text among the metadata that are added."""
_FAILED = re.compile(r"failed to quantize: (.*)")


def quantize(
    source: Path,
    out: Path,
    file_type: int,
    *,
    tell: TellLine,
    num_threads: int,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    metadata: Mapping[str, str | int] | None = None,
    is_requantizing: bool = False,
    is_dry_run: bool = False,
) -> None:
    """Write `out` from the GGUF `source`; in a dry run only tell, line by line, what would be written.

    `importance`: mean square of each column's activations, by the tensor's name, shape [columns] or [experts * columns]. `metadata` is
    added to what is copied from `source`. Raises QuantizeError with llama.cpp's own reason.
    """
    initialise()
    params = C.llama_model_quantize_default_params()
    params.nthread = num_threads
    params.ftype = file_type
    params.allow_requantize = is_requantizing
    params.dry_run = is_dry_run
    params.max_buf_size = BUFFER_BYTES
    matrix = _imatrix(importance or {})
    overrides = _overrides(metadata or {})
    params.imatrix = ctypes.cast(matrix, ctypes.POINTER(C.llama_model_imatrix_data)) if importance else None
    params.kv_overrides = ctypes.cast(overrides, ctypes.POINTER(C.llama_model_kv_override)) if metadata else None
    with _Listener(tell) as listener:
        code = C.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(params))
    if code != 0:
        raise QuantizeError(f"llama.cpp cannot quantise {source}: {listener.reason}")


def _imatrix(importance: Mapping[str, NDArray[np.float32]]) -> Any:
    """A list that ends with an entry without a name; the arrays stay alive with it."""
    entries = (C.llama_model_imatrix_data * (len(importance) + 1))()
    kept = []
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        row = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        kept.append(row)
        entry.name = name.encode()
        entry.data = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = row.size
    entries._kept = kept
    return entries


def _overrides(metadata: Mapping[str, str | int]) -> Any:
    """A list that ends with an entry without a key."""
    entries = (C.llama_model_kv_override * (len(metadata) + 1))()
    for entry, (key, value) in zip(entries, metadata.items(), strict=False):
        entry.key = key.encode()
        if isinstance(value, int):
            entry.tag = C.LLAMA_KV_OVERRIDE_TYPE_INT
            entry.value.val_i64 = value
        else:
            entry.tag = C.LLAMA_KV_OVERRIDE_TYPE_STR
            entry.value.val_str = value.encode()[:MAX_TEXT_BYTES]
    return entries


class _Listener:
    """llama.cpp's log while it quantises, line by line; it is written in pieces."""

    def __init__(self, tell: TellLine) -> None:
        self._tell = tell
        self._partial = ""
        self.reason = "it gave no reason"
        self._callback = C.llama_log_callback(self._on_text)
        self._before = (C.llama_log_callback(), ctypes.c_void_p())

    def __enter__(self) -> _Listener:
        C.llama_log_get(ctypes.byref(self._before[0]), ctypes.byref(self._before[1]))
        C.llama_log_set(self._callback, ctypes.c_void_p())
        return self

    def __exit__(self, *_: object) -> None:
        C.llama_log_set(*self._before)

    def _on_text(self, _level: int, text: bytes, _user: Any) -> None:
        *lines, self._partial = (self._partial + text.decode("utf-8", "replace")).split("\n")
        for line in lines:
            match = _FAILED.search(line)
            if match:
                self.reason = match[1].strip()
            if line.strip():
                self._tell(line)
