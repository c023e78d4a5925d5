"""Weights and vocabulary."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
from numpy.typing import NDArray

from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.library import forget_log, initialise, log_reason
from backends.llamacpp.binding.vocabulary import can_generate, tokenize
from backends.llamacpp.options import Options

Tokens = NDArray[np.int32]

_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_LOSSLESS_TYPES = (1, 2)
"""SPM and BPE."""
_SPECIAL_ATTRS = 1 << 0 | 1 << 3
"""UNKNOWN and CONTROL: what llama_tokenize makes of a text only with parse_special."""


class Model:
    """Weights and vocabulary. Raises ModelError when the file cannot be loaded."""

    def __init__(self, path: Path, options: Options) -> None:
        initialise()
        if options.n_gpu_layers > 0 and not C.llama_supports_gpu_offload():
            raise ModelError(
                f"n_gpu_layers: {options.n_gpu_layers} layers on a GPU, but this llama.cpp has no GPU backend"
            )
        if not path.is_file():
            raise ModelError(f"no such model file: {path}")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"not a GGUF file: {path}")
        forget_log()
        self._params = _model_params(options)
        self.pointer = C.llama_model_load_from_file(os.fsencode(path), self._params)
        if not self.pointer:
            raise ModelError(f"cannot load {path}: {log_reason()}")
        self.vocab = C.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(C.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(self.pointer))
        self.n_params = int(C.llama_model_n_params(self.pointer))
        self.size_bytes = int(C.llama_model_size(self.pointer))
        self.num_attention_heads = int(C.llama_model_n_head(self.pointer)) * int(C.llama_model_n_layer(self.pointer))
        """Over all layers."""
        self.description = self._text(C.llama_model_desc)
        self.add_bos = bool(C.llama_vocab_get_add_bos(self.vocab))
        self.bos = int(C.llama_vocab_bos(self.vocab))
        self.eos = int(C.llama_vocab_eos(self.vocab))
        self.end_of_generation = np.array(
            [token for token in range(self.n_vocab) if C.llama_vocab_is_eog(self.vocab, token)], dtype=np.int32
        )
        self.special_tokens = {text: token for token in range(self.n_vocab) if (text := self._special_text(token))}
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self.longest_token_bytes = max(len(self._piece(token, special=True)) for token in range(self.n_vocab))
        """Of text that one token can stand for."""

    def close(self) -> None:
        """Free the weights; contexts made from them must be closed before."""
        if self.pointer:
            C.llama_model_free(self.pointer)
            self.pointer = None

    @property
    def can_reuse_prefix(self) -> bool:
        """False where the memory cannot be cut at any position: recurrent, hybrid and sliding-window models."""
        pointer = self.pointer
        return not (
            C.llama_model_is_recurrent(pointer) or C.llama_model_is_hybrid(pointer) or C.llama_model_n_swa(pointer) > 0
        )

    @property
    def can_generate(self) -> bool:
        """False for encoder-only and diffusion models, which have no next token."""
        return can_generate(self.pointer)

    @property
    def is_lossless(self) -> bool:
        """Whether tokens hold all bytes of their text: not where it is normalised or whole words become "unknown"."""
        return int(C.llama_vocab_type(self.vocab)) in _LOSSLESS_TYPES

    @property
    def tokenizer_address(self) -> tuple[int, int]:
        """The vocabulary's pointer and that of llama_tokenize, for code outside Python."""
        function = ctypes.cast(C._lib.llama_tokenize, ctypes.c_void_p).value
        assert function is not None
        return self.vocab, function

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF header as text, or None."""
        buffer = ctypes.create_string_buffer(1 << 16)
        length = C.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def chat_template(self) -> str | None:
        """The model's own Jinja chat template, or None."""
        template = C.llama_model_chat_template(self.pointer, None)
        return template.decode("utf-8") if template else None

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> Tokens:
        """Token ids of `text`, shape [n]. With `parse_special` the text of control tokens becomes these tokens."""
        return tokenize(self.vocab, text, add_special, parse_special)

    def piece(self, token: int) -> bytes:
        """The bytes that `token` adds to the text; empty for control tokens. Half a character is possible."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._piece(token, special=False)
        return piece

    def token_text(self, token: int) -> bytes:
        """As `piece`, but control tokens show their text."""
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self._piece(token, special=True)
        return text

    def detokenize(self, tokens: Seq[int]) -> str:
        """The text of `tokens`; invalid UTF-8 becomes U+FFFD."""
        return b"".join(self.token_text(token) for token in tokens).decode("utf-8", "replace")

    def _piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = C.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _special_text(self, token: int) -> str:
        attr = C.llama_vocab_get_attr(self.vocab, token)
        return C.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace") if attr & _SPECIAL_ATTRS else ""

    def _text(self, function: Any) -> str:
        buffer = ctypes.create_string_buffer(256)
        function(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")


def _model_params(options: Options) -> Any:
    params = C.llama_model_default_params()
    params.n_gpu_layers = options.n_gpu_layers
    params.main_gpu = options.main_gpu
    params.split_mode = _SPLIT_MODES[options.split_mode]
    if options.tensor_split:
        if len(options.tensor_split) > C.llama_max_devices():
            raise ModelError(
                f"tensor_split: {len(options.tensor_split)} shares, at most {C.llama_max_devices()} devices"
            )
        shares = (ctypes.c_float * C.llama_max_devices())(*options.tensor_split)
        params.tensor_split = shares
        # ctypes keeps no reference to an array behind a pointer field.
        params._tensor_split = shares
    params.load_mode = {(True, True): 3, (True, False): 1, (False, True): 2, (False, False): 0}[
        options.use_mmap, options.use_mlock
    ]
    return params
