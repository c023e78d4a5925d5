"""The llama.cpp C API, as far as the engine needs it. The only file that names llama_cpp and the owner of every pointer.

Built on the low-level ctypes module, not on llama-cpp-python's classes, which flatten llama_decode's return codes into
one error although each of them needs another answer (llama.h):

    0   done                       decode() returns
    1   no room in the KV cache    CacheFull: free or preempt a sequence and try again; nothing was changed
    2   aborted                    DecodeAborted
    -1  invalid batch              DecodeError: our bug, the step's sequences fail
    < -1 fatal                     DecodeError: the context is not to be trusted any more

A context belongs to one thread. ctypes releases the GIL for the length of each call.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

# OpenMP threads spin at every barrier of the graph by default. That is fastest on an idle machine, and 10 to 100 times
# slower where other processes want the cores too: a thread spins for one that is not running. Read when libgomp loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as C
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from backends.llamacpp.options import MAX_SEQUENCE_IDS, Options

Tokens = NDArray[np.int32]
Logits = NDArray[np.float32]

_GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_SPECIAL_ATTRS = 1 << 0 | 1 << 3
"""UNKNOWN and CONTROL: what llama_tokenize makes of a text only with parse_special."""
_DEVICE_TYPE_CPU = 0
_LOG_LEVEL_WARN = 3


class BindingError(Exception):
    """Root of what llama.cpp refuses.

    BindingError
    |- ModelError       the model file or the context cannot be made (exit code 3)
    |- DecodeError      a step failed for good
    |- DecodeAborted    a step was aborted
    `- CacheFull        no KV cells for this batch; nothing was changed
    """


class ModelError(BindingError):
    """The model cannot be loaded or its context cannot be created."""


class DecodeError(BindingError):
    """llama_decode failed; `code` is its return value."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


class DecodeAborted(BindingError):
    """llama_decode was aborted."""


class CacheFull(BindingError):
    """The batch found no room in the KV cache."""


class _Log:
    """llama.cpp's log: warnings and errors are kept for the message of a failed load, the rest is dropped."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=20)
        self._last_level = 0
        # The callback object must outlive every call that llama.cpp makes.
        self.callback = C.llama_log_callback(self._on_line)

    def _on_line(self, level: int, text: bytes, _user: Any) -> None:
        # Level 5 continues the line before.
        if level != 5:
            self._last_level = level
        if self._last_level >= _LOG_LEVEL_WARN and text.strip():
            self.lines.append(text.decode("utf-8", "replace").strip())

    def reason(self) -> str:
        errors = [line for line in self.lines if "error" in line.lower() or "failed" in line.lower()]
        return (errors or list(self.lines) or ["llama.cpp gave no reason"])[0]


_log: _Log | None = None


def initialise() -> None:
    """Load the backends once per process and take over llama.cpp's log."""
    global _log
    if _log is None:
        _log = _Log()
        C.llama_log_set(_log.callback, ctypes.c_void_p())
        C.llama_backend_init()


def compute_backend() -> str:
    """The device that computes: a GPU's name and description, else `CPU`."""
    initialise()
    names = []
    for index in range(_ggml("ggml_backend_dev_count", ctypes.c_size_t)()):
        device = _ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)(index)
        if _ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device) != _DEVICE_TYPE_CPU:
            name = _ggml("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(device)
            text = _ggml("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)(device)
            names.append(f"{name.decode()} ({text.decode()})")
    return ", ".join(names) or "CPU"


def system_info() -> str:
    """Instruction sets and features that llama.cpp was built with and found."""
    initialise()
    return str(C.llama_print_system_info().decode())


def version() -> str:
    """llama.cpp's own version."""
    return str(C.llama_version().decode())


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
        assert _log is not None
        _log.lines.clear()
        self._params = _model_params(options)
        self._pointer = C.llama_model_load_from_file(os.fsencode(path), self._params)
        if not self._pointer:
            raise ModelError(f"cannot load {path}: {_log.reason()}")
        self._vocab = C.llama_model_get_vocab(self._pointer)
        self.n_vocab = int(C.llama_vocab_n_tokens(self._vocab))
        self.n_ctx_train = int(C.llama_model_n_ctx_train(self._pointer))
        self.n_params = int(C.llama_model_n_params(self._pointer))
        self.size_bytes = int(C.llama_model_size(self._pointer))
        self.num_attention_heads = int(C.llama_model_n_head(self._pointer)) * int(C.llama_model_n_layer(self._pointer))
        """Over all layers."""
        self.description = self._text(C.llama_model_desc)
        self.add_bos = bool(C.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(C.llama_vocab_bos(self._vocab))
        self.eos = int(C.llama_vocab_eos(self._vocab))
        self.end_of_generation = np.array(
            [token for token in range(self.n_vocab) if C.llama_vocab_is_eog(self._vocab, token)], dtype=np.int32
        )
        self.special_tokens = {text: token for token in range(self.n_vocab) if (text := self._special_text(token))}
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}

    def close(self) -> None:
        """Free the weights; contexts made from them must be closed before."""
        if self._pointer:
            C.llama_model_free(self._pointer)
            self._pointer = None

    @property
    def can_reuse_prefix(self) -> bool:
        """False where the memory cannot be cut at any position: recurrent, hybrid and sliding-window models."""
        pointer = self._pointer
        return not (
            C.llama_model_is_recurrent(pointer) or C.llama_model_is_hybrid(pointer) or C.llama_model_n_swa(pointer) > 0
        )

    @property
    def can_generate(self) -> bool:
        """False for encoder-only and diffusion models, which have no next token."""
        return bool(C.llama_model_has_decoder(self._pointer)) and not C.llama_model_is_diffusion(self._pointer)

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF header as text, or None."""
        buffer = ctypes.create_string_buffer(1 << 16)
        length = C.llama_model_meta_val_str(self._pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def chat_template(self) -> str | None:
        """The model's own Jinja chat template, or None."""
        template = C.llama_model_chat_template(self._pointer, None)
        return template.decode("utf-8") if template else None

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> Tokens:
        """Token ids of `text`, shape [n]. With `parse_special` the text of control tokens becomes these tokens."""
        data = text.encode("utf-8", "surrogatepass")
        capacity = len(data) + 8
        ids = np.empty(capacity, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = C.llama_tokenize(self._vocab, data, len(data), pointer, capacity, add_special, parse_special)
        if count < 0:
            ids = np.empty(-count, dtype=np.int32)
            pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = C.llama_tokenize(self._vocab, data, len(data), pointer, -count, add_special, parse_special)
        return ids[:count].copy()

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
            length = C.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _special_text(self, token: int) -> str:
        attr = C.llama_vocab_get_attr(self._vocab, token)
        return C.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if attr & _SPECIAL_ATTRS else ""

    def _text(self, function: Any) -> str:
        buffer = ctypes.create_string_buffer(256)
        function(self._pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")


class Context:
    """One KV cache and the batch that fills it. Used by the engine thread only.

    `num_cells` KV cells are shared by all sequences; sequence ids are 0 <= id < `num_sequence_ids`.
    """

    def __init__(self, model: Model, options: Options, *, num_threads: int, num_threads_batch: int) -> None:
        assert _log is not None
        _log.lines.clear()
        self.model = model
        self.num_sequence_ids = min(
            MAX_SEQUENCE_IDS, 2 * options.n_seq_max if options.prefix_cache else options.n_seq_max
        )
        # llama.cpp reserves a row of logits per sequence id in any case.
        self.max_outputs = max(self.num_sequence_ids, min(options.n_ubatch, 128))
        self.num_outputs = 0
        self._logits: Logits = np.empty((0, model.n_vocab), dtype=np.float32)
        self._logits_at = (0, 0)
        params = _context_params(options, self.num_sequence_ids, self.max_outputs)
        params.n_threads, params.n_threads_batch = num_threads, num_threads_batch
        self._pointer = C.llama_init_from_model(model._pointer, params)
        if not self._pointer:
            raise ModelError(f"cannot create a context (n_ctx {options.n_ctx}): {_log.reason()}")
        self._memory = C.llama_get_memory(self._pointer)
        self.num_cells = int(C.llama_n_ctx(self._pointer))
        self._allocate_batch(int(C.llama_n_batch(self._pointer)))

    def close(self) -> None:
        """Free the context."""
        if self._pointer:
            C.llama_free(self._pointer)
            self._pointer = None

    def decode(self, tokens: Tokens, positions: Tokens, sequence_ids: Tokens, wants_logits: NDArray[np.int8]) -> None:
        """Run one step over n tokens (all arrays of shape [n]).

        Raises CacheFull, DecodeAborted or DecodeError (module docstring).
        """
        n = len(tokens)
        self._tokens[:n] = tokens
        self._positions[:n] = positions
        self._ids[:n] = sequence_ids
        self._wants[:n] = wants_logits
        self._batch.n_tokens = n
        self.num_outputs = int(np.count_nonzero(wants_logits))
        code = C.llama_decode(self._pointer, self._batch)
        if code == 0:
            return
        if code == 1:
            raise CacheFull(f"no KV cells for {n} tokens")
        if code == 2:
            raise DecodeAborted("llama_decode was aborted")
        raise DecodeError(code)

    def logits(self) -> Logits:
        """The step's logits, shape [num_outputs, n_vocab], rows in batch order. A writable view until the next decode."""
        address = ctypes.addressof(C.llama_get_logits(self._pointer).contents)
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

    def _allocate_batch(self, capacity: int) -> None:
        """A llama_batch over numpy memory, so that a step is filled by slice assignment."""
        self.max_tokens = capacity
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._ids = np.zeros(capacity, dtype=np.int32)
        self._wants = np.zeros(capacity, dtype=np.int8)
        self._counts = np.ones(capacity, dtype=np.int32)
        base = self._ids.ctypes.data
        int32_pointer = ctypes.POINTER(ctypes.c_int32)
        addresses = (ctypes.c_void_p * capacity)(*(base + 4 * index for index in range(capacity)))
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


class Sampler:
    """Draws from a row of logits: temperature, then top_k, typical, top_p, min_p, then a seeded draw.

    The temperature comes before the filters, as in vLLM and transformers. Each step is left out where its
    parameter changes nothing. The random state lives here, so a request's draws depend on its seed alone.
    """

    def __init__(
        self, *, temperature: float, top_k: int, typical_p: float, top_p: float, min_p: float, seed: int
    ) -> None:
        self._pointer = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if temperature != 1.0:
            self._add(C.llama_sampler_init_temp(temperature))
        if top_k > 0:
            self._add(C.llama_sampler_init_top_k(top_k))
        if typical_p < 1.0:
            self._add(C.llama_sampler_init_typical(typical_p, 1))
        if top_p < 1.0:
            self._add(C.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0.0:
            self._add(C.llama_sampler_init_min_p(min_p, 1))
        self._add(C.llama_sampler_init_dist(seed))

    def _add(self, part: Any) -> None:
        C.llama_sampler_chain_add(self._pointer, part)

    def sample(self, context: Context, row: int) -> int:
        """A token from output `row` of the context's last step."""
        # llama.cpp counts from the batch's first token; negative numbers count outputs from the last one.
        return int(C.llama_sampler_sample(self._pointer, context._pointer, row - context.num_outputs))

    def close(self) -> None:
        """Free the chain."""
        if self._pointer:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def __del__(self) -> None:
        self.close()


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


def _context_params(options: Options, num_sequence_ids: int, max_outputs: int) -> Any:
    params = C.llama_context_default_params()
    params.n_ctx = options.n_ctx
    params.n_batch = options.n_batch
    params.n_ubatch = options.n_ubatch
    params.n_seq_max = num_sequence_ids
    params.n_outputs_max = max_outputs
    params.n_outputs_max_per_seq = max_outputs
    params.flash_attn_type = _FLASH_ATTN[options.flash_attn]
    params.type_k = _GGML_TYPES[options.cache_type_k]
    params.type_v = _GGML_TYPES[options.cache_type_v]
    params.kv_unified = True
    params.offload_kqv = options.n_gpu_layers != 0
    params.no_perf = True
    return params


def _ggml(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(libggml, name)
    function.restype = result
    function.argtypes = list(arguments)
    return function
