"""A GGUF LoRA before it is loaded: what llama.cpp would apply only in part, or abort the process over, is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backends.errors import ModelUnusable
from backends.llamacpp.binding.errors import AdapterError
from backends.llamacpp.header import TYPE_SIZES, Header, read_header

INVARIANT_TYPES = {0: "F32", 1: "F16", 30: "BF16", 8: "Q8_0"}
"""ggml types of which llama.cpp's CPU kernels compute a token alike beside any number of others, but for a lone one."""
BASE_DIGEST = "forgegate.base_source_digest"
"""Key of the digest of the source weights that it was trained on."""
_NUMBERS = range(24, 29)
"""ggml's whole numbers and f64, by which it multiplies nothing."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A file that may be loaded."""

    path: Path
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Requirements:
    """What an engine asks of adapters."""

    base_digest: str | None = None
    """Of the source weights of its model; None where that is not known."""
    is_batch_invariant: bool = False
    """Only types of weights whose kernels do not differ with the batch."""


def inspect(path: Path, required: Requirements) -> AdapterFile:
    """Check a file, and read it once so that loading it waits for no disk. Raises AdapterError. Any thread; blocks."""
    # A pipe would be waited for for ever.
    if "\0" in str(path) or (path.exists() and not path.is_file()):
        raise AdapterError(f"cannot load the adapter {path}: it is no file")
    try:
        header = read_header(path)
    except ModelUnusable as error:
        raise AdapterError(f"cannot load the adapter {error}") from error
    problem = _problem(header, required)
    if problem:
        raise AdapterError(f"cannot load the adapter {path}: {problem}")
    return AdapterFile(path, _read(path))


def _problem(header: Header, required: Requirements) -> str:
    kind = header.metadata.get("general.type")
    if kind != "adapter" or header.metadata.get("adapter.type") != "lora":
        return f"it is no LoRA adapter (general.type: {kind})"
    trained_on = header.metadata.get(BASE_DIGEST)
    if trained_on and required.base_digest and trained_on != required.base_digest:
        return f"it was trained on weights with the digest {trained_on}, this model's is {required.base_digest}"
    if not header.tensors:
        return "it holds no weights"
    for tensor in header.tensors:
        if not tensor.name.endswith((".lora_a", ".lora_b")):
            return f"llama.cpp would ignore its tensor {tensor.name}"
        if tensor.type not in TYPE_SIZES or tensor.type in _NUMBERS:
            return f"its tensor {tensor.name} has ggml type {tensor.type}, with which llama.cpp cannot compute"
        if required.is_batch_invariant and tensor.type not in INVARIANT_TYPES:
            known = ", ".join(INVARIANT_TYPES.values())
            return f"its tensor {tensor.name} has ggml type {tensor.type}; with batch_invariant they must be {known}"
    return ""


def _read(path: Path) -> int:
    """The bytes of a file, all of which are in the page cache then."""
    block, num_bytes = bytearray(_READ_BYTES), 0
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                num_bytes += count
    except OSError as error:
        raise AdapterError(f"cannot load the adapter {path}: {error.strerror or error}") from error
    return num_bytes
