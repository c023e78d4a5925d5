"""What llama.cpp would apply in part, or abort over, is refused before it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backends.llamacpp.adapter_file import Requirements, inspect
from backends.llamacpp.binding.errors import AdapterError

gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")
DIGEST = "sha256:" + "1" * 64


def write(path: Path, *, kind: str = "adapter", lora: str = "lora", digest: str = DIGEST, **tensors: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    writer.add_string("adapter.type", lora)
    writer.add_string("forgegate.base_source_digest", digest)
    for name, values in tensors.items():
        writer.add_tensor(name.replace("__", "."), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PAIR = {f"blk__0__attn_q__weight__lora_{part}": np.zeros((8, 32), dtype=np.float32) for part in "ab"}


def test_a_sound_file_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", **PAIR)
    file = inspect(path, Requirements(DIGEST, is_batch_invariant=True))
    assert (file.path, file.num_bytes) == (path, path.stat().st_size)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "model", **PAIR}, "no LoRA adapter .general.type: model."),
        ({"lora": "other", **PAIR}, "no LoRA adapter"),
        ({"digest": "sha256:" + "2" * 64, **PAIR}, "trained on weights with the digest sha256:2222"),
        ({}, "holds no weights"),
        ({**PAIR, "blk__0__attn_norm__weight": np.zeros(8, dtype=np.float32)}, "ignore its tensor blk.0.attn_norm"),
        ({**PAIR, "x__lora_a": np.zeros((8, 8), dtype=np.int32)}, "x.lora_a has ggml type 26"),
        ({**PAIR, "x__lora_a": np.zeros((8, 8), dtype=np.float64)}, "x.lora_a has ggml type 28"),
    ],
)
def test_what_cannot_be_served_is_told(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        inspect(write(tmp_path / "a.gguf", **changed), Requirements(DIGEST))


def test_a_type_whose_kernels_differ_with_the_batch(tmp_path: Path) -> None:
    values = np.zeros((8, 18), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_tensor("x.lora_a", values, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    inspect(tmp_path / "a.gguf", Requirements())
    with pytest.raises(AdapterError, match="ggml type 2; with batch_invariant they must be F32, F16, BF16, Q8_0"):
        inspect(tmp_path / "a.gguf", Requirements(is_batch_invariant=True))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>" * 10])
def test_what_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(AdapterError, match=r"cannot load the adapter .*a\.gguf"):
        inspect(tmp_path / "a.gguf", Requirements())


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(AdapterError, match="it is no file"):
            inspect(path, Requirements())
