"""A vocabulary without its model's weights."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.library import forget_log, initialise, log_reason

Tokens = NDArray[np.int32]


class Vocabulary:
    """Of a GGUF; however large that is, no weights are read. Raises ModelError."""

    def __init__(self, path: Path) -> None:
        initialise()
        forget_log()
        params = C.llama_model_default_params()
        params.vocab_only = True
        self._pointer = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self._pointer:
            raise ModelError(f"cannot read the vocabulary of {path}: {log_reason()}")
        self._vocab = C.llama_model_get_vocab(self._pointer)
        self.add_bos = bool(C.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(C.llama_vocab_bos(self._vocab))
        self.can_generate = can_generate(self._pointer)

    def close(self) -> None:
        if self._pointer:
            C.llama_model_free(self._pointer)
            self._pointer = None

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> Tokens:
        """As the whole model does."""
        return tokenize(self._vocab, text, add_special, parse_special)


def can_generate(pointer: Any) -> bool:
    """False for encoder-only and diffusion models, which have no next token."""
    return bool(C.llama_model_has_decoder(pointer)) and not C.llama_model_is_diffusion(pointer)


def tokenize(vocab: Any, text: str, add_special: bool, parse_special: bool) -> Tokens:
    """Token ids of `text`, shape [n]. With `parse_special` the text of control tokens becomes these tokens."""
    data = text.encode("utf-8", "surrogatepass")
    capacity = len(data) + 8
    ids = np.empty(capacity, dtype=np.int32)
    pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    count = C.llama_tokenize(vocab, data, len(data), pointer, capacity, add_special, parse_special)
    if count < 0:
        ids = np.empty(-count, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = C.llama_tokenize(vocab, data, len(data), pointer, -count, add_special, parse_special)
    return ids[:count].copy()
