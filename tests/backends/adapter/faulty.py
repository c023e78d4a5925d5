"""Broken adapters, made of a signing adapter of the demo model: one for every rule that refuses them.

python -m tests.backends.adapter.faulty OUT    writes each as a folder OUT/<name>, and archives as OUT/<name>.tar
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.adapter.upload import CONFIG, WEIGHTS
from backends.artifacts import Tensor, read_tensors, write_tensors

HOST = Path(__file__).resolve().parents[3] / "backends" / "demo" / "adapters" / "host"
PREFIX = "base_model.model.model.layers"
Q_A, Q_B = (f"{PREFIX}.0.self_attn.q_proj.lora_{factor}.weight" for factor in "AB")
DIGEST_KEY = "forgegate.base_source_digest"
Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Fault:
    """`make` breaks an adapter's folder in place; `rule` refuses it about `tensor`, with `words` in its message."""

    rule: str
    tensor: str
    words: str
    make: Callable[[Path], None]
    engines: str = "llamacpp,vllm"


@dataclass(frozen=True, slots=True)
class BadArchive:
    """As `Fault`, of a tar archive."""

    rule: str
    tensor: str
    words: str
    make: Callable[[Path], bytes]


def copy_of(adapter: Path, folder: Path) -> Path:
    return Path(shutil.copytree(adapter, folder))


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return change


def metadata_of(folder: Path) -> dict[str, str]:
    metadata: dict[str, str] = header_of((folder / WEIGHTS).read_bytes())[0]["__metadata__"]
    return metadata


def tensors_changed(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        metadata = metadata_of(folder)
        tensors = {n: replace(t, data=t.data.copy()) for n, t in read_tensors(folder / WEIGHTS).items()}
        change(tensors)
        write_tensors(folder / WEIGHTS, tensors, metadata)

    return apply


def header_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def header_changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        header, data = header_of((folder / WEIGHTS).read_bytes())
        change(header)
        write_raw(folder, json.dumps(header).encode(), data)

    return apply


def write_raw(folder: Path, header: bytes, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data)


def f16(values: np.ndarray[Any, Any]) -> Tensor:
    return Tensor("F16", tuple(values.shape), np.ascontiguousarray(values, np.float16).reshape(-1).view(np.uint8))


def _put(name: str, shape: tuple[int, ...], value: float = 0.01) -> Callable[[Path], None]:
    return tensors_changed(lambda tensors: tensors.update({name: f16(np.full(shape, value))}))


def _set_value(name: str, value: float) -> Callable[[Path], None]:
    return tensors_changed(lambda tensors: tensors[name].data.view(np.float16).__setitem__(3, value))


def _drop(name: str) -> Callable[[Path], None]:
    return tensors_changed(lambda tensors: tensors.__delitem__(name))


def _entry(name: str, **fields: Any) -> Callable[[Path], None]:
    return header_changed(lambda header: header[name].update(fields))


def _overlap(header: dict[str, Any]) -> None:
    header[f"{PREFIX}.1.self_attn.q_proj.lora_A.weight"]["data_offsets"] = header[Q_A]["data_offsets"]


def _twice(folder: Path) -> None:
    header, data = header_of((folder / WEIGHTS).read_bytes())
    text = json.dumps(header)
    again = json.dumps({Q_A: header[Q_A]})[1:]
    write_raw(folder, f"{text[:-1]}, {again}".encode(), data)


def _other_base(folder: Path) -> None:
    write_tensors(folder / WEIGHTS, read_tensors(folder / WEIGHTS), {DIGEST_KEY: "sha256:" + "1" * 64})


def _rank(rank: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_tensors(folder / WEIGHTS, {Q_A: f16(np.ones((rank, 256))), Q_B: f16(np.ones((256, rank)))})
        configured(r=rank, target_modules=["q_proj"], layers_to_transform=[0])(folder)

    return change


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    """A statement where a function of no result is wanted."""


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def _trailing(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"\0" * 64)


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))


def _link(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "elsewhere")
    (folder / WEIGHTS).symlink_to("elsewhere")


def _with_f64(tensors: Tensors) -> None:
    values = tensors[Q_A].to_f32().astype(np.float64)
    tensors[Q_A] = Tensor("F64", values.shape, values.reshape(-1).view(np.uint8))


def _beyond(tensors: Tensors) -> None:
    for factor in "AB":
        name = f"{PREFIX}.0.self_attn.q_proj.lora_{factor}.weight"
        tensors[name.replace("layers.0", "layers.8")] = tensors[name]


def _wide_rank(tensors: Tensors) -> None:
    tensors[Q_A], tensors[Q_B] = f16(np.ones((16, 256))), f16(np.ones((256, 16)))


def _prefixless(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[name.removeprefix("base_model.model.")] = tensors.pop(name)


_EMBEDDING = "base_model.model.model.embed_tokens"
_RATTLE = "((a|b|c|d|e|.)+)+!"

FAULTS: dict[str, Fault] = {
    # what the file says of itself
    "cut-off": Fault("header", "", "cut off", _cut),
    "trailing-bytes": Fault("trailing-bytes", "", "64 bytes after the last tensor", _trailing),
    "header-cut": Fault("header", "", "is not JSON", lambda folder: write_raw(folder, b"{", b"")),
    "header-longer-than-file": Fault("header", "", "in a file of 40", _write(WEIGHTS, b"\xff" * 40)),
    "header-no-json": Fault("header", "", "is not JSON", lambda folder: write_raw(folder, b"{nothing", b"1234")),
    "header-no-object": Fault("header", "", "not an object", lambda folder: write_raw(folder, b"[]", b"1234")),
    "empty-weights": Fault("header", "", "in a file of 0", _write(WEIGHTS, b"")),
    "lfs-pointer": Fault("header", "", "Git LFS", _write(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n")),
    "lying-size": Fault("header", Q_A, "takes 8,192 bytes", _entry(Q_A, shape=[16, 256])),
    "no-offsets": Fault("header", Q_A, "lacks a dtype, shape", header_changed(lambda h: void(h[Q_A].pop("data_offsets")))),
    "overlap": Fault("overlap", "", "shares its bytes", header_changed(_overlap)),
    "negative-shape": Fault("header", Q_A, "lacks a dtype, shape", _entry(Q_A, shape=[-8, -256])),
    "overflowing-shape": Fault("shape-overflow", Q_A, "no tensor has the shape", _entry(Q_A, shape=[2**33, 2**33])),
    "listed-twice": Fault("duplicate-tensor", Q_A, "listed twice", _twice),
    # values
    "nan": Fault("not-finite", Q_A, "holds 1 values", _set_value(Q_A, np.nan)),
    "infinity": Fault("not-finite", Q_B, "holds 1 values", _set_value(Q_B, -np.inf)),
    "float64": Fault("dtype", Q_A, "F64", tensors_changed(_with_f64)),
    "float8": Fault("dtype", Q_A, "F8_E9", _entry(Q_A, dtype="F8_E9")),
    "scale-overflow": Fault("overflow", "", "beyond float32", configured(lora_alpha=1e42)),
    # the base
    "other-base": Fault("wrong-base", "", "it was trained on the base sha256:1111", _other_base),
    "manifest-of-other-base": Fault(
        "wrong-base", "", "manifest.json", _write("manifest.json", b'{"base": {"source_digest": "sha256:2"}}')
    ),
    "other-width": Fault("shape", Q_A, "takes [rank, 256]", _put(Q_A, (8, 512))),
    "vector": Fault("shape", Q_B, "not that of a matrix", _put(Q_B, (256,))),
    "layer-beyond": Fault("layer-beyond-base", "", "has layers 0 to 7", tensors_changed(_beyond)),
    "unknown-module": Fault(
        "unknown-target", "", "has no matrix model.layers.0.mlp.experts", _put(f"{PREFIX}.0.mlp.experts.lora_A.weight", (8, 256))
    ),
    "embedding": Fault("embedding-lora", "", "embedding", _put(f"{_EMBEDDING}.lora_embedding_A", (8, 4096))),
    "embedding-as-linear": Fault("embedding-lora", "", "on the embedding", _put(f"{_EMBEDDING}.lora_A.weight", (8, 256))),
    "tied-lm-head": Fault("tied-output", "", "shares its output", _put("base_model.model.lm_head.lora_A.weight", (8, 256))),
    "whole-embedding": Fault("modules-to-save", "", "whole weight", _put(f"{_EMBEDDING}.weight", (4096, 256))),
    # pairs, ranks, names
    "no-lora-a": Fault("missing-factor", Q_A, "is there without lora_A", _drop(Q_A)),
    "no-lora-b": Fault("missing-factor", Q_B, "is there without lora_B", _drop(Q_B)),
    "rank-mismatch": Fault("rank-mismatch", Q_A, "rank 16, adapter_config.json says 8", tensors_changed(_wide_rank)),
    "rank-pattern-mismatch": Fault("rank-mismatch", "", "says 4", configured(rank_pattern={r"layers\.1\..*": 4})),
    "rank-zero": Fault("rank", "r", "r is 0", configured(r=0)),
    "rank-negative": Fault("rank", "r", "r is -8", configured(r=-8)),
    "rank-text": Fault("rank", "r", "r is '8'", configured(r="8")),
    "rank-over-vllm": Fault("rank-limit", Q_A, "vLLM takes up to 512", _rank(520), "vllm"),
    "rank-over-sides": Fault("rank-limit", Q_A, "more than both sides", _rank(300), "llamacpp"),
    "no-prefix": Fault("unknown-tensor", "", "PEFT would not load it", tensors_changed(_prefixless)),
    "stray-tensor": Fault("unknown-tensor", "stray", "neither lora_A nor lora_B", _put("stray", (8, 8))),
    "no-tensors": Fault("no-tensors", "", "holds no lora_A", tensors_changed(lambda tensors: tensors.clear())),
    "outside-targets": Fault("outside-targets", "", "does not name", configured(target_modules=["q_proj"])),
    "excluded": Fault("outside-targets", "", "does not name", configured(exclude_modules=["q_proj"])),
    "other-layers": Fault("outside-targets", "", "does not name", configured(layers_to_transform=[1])),
    # what changes the mathematics
    "dora": Fault("dora", "use_dora", "llama.cpp and vLLM cannot serve it", configured(use_dora=True)),
    "dora-tensor": Fault("dora", "", "magnitude of DoRA", _put(f"{PREFIX}.0.self_attn.q_proj.lora_magnitude_vector", (256,))),
    "bias-all": Fault("bias", "bias", "cannot be served", configured(bias="all")),
    "bias-tensor": Fault("bias", "", "trained bias", _put(f"{PREFIX}.0.self_attn.q_proj.bias", (256,))),
    "lora-bias": Fault("lora-bias", "lora_bias", "adds a bias", configured(lora_bias=True)),
    "lora-bias-tensor": Fault("lora-bias", "", "bias of LoRA", _put(Q_B.replace("weight", "bias"), (256,))),
    "modules-to-save": Fault("modules-to-save", "modules_to_save", "whole modules", configured(modules_to_save=["lm_head"])),
    "trainable-tokens": Fault(
        "trainable-tokens", "trainable_token_indices", "rows of the embedding", configured(trainable_token_indices=[1])
    ),
    "alora": Fault("alora", "alora_invocation_tokens", "part of the text", configured(alora_invocation_tokens=[5, 6])),
    "target-parameters": Fault(
        "target-parameters", "target_parameters", "no modules", configured(target_parameters=["experts.gate_up_proj"])
    ),
    "layer-replication": Fault("layer-replication", "", "another model", configured(layer_replication=[[0, 4], [2, 8]])),
    "fan-in-fan-out": Fault("fan-in-fan-out", "fan_in_fan_out", "transposed", configured(fan_in_fan_out=True)),
    "qalora": Fault("qalora", "use_qalora", "pools its input", configured(use_qalora=True)),
    "bdlora": Fault("bdlora", "use_bdlora", "block-diagonal", configured(use_bdlora={"nblocks": 2})),
    "kasa": Fault("kasa", "kasa_config", "base's own weights", configured(kasa_config={"beta": 1})),
    "arrow": Fault("arrow", "arrow_config", "routes", configured(arrow_config={"top_k": 3})),
    "monteclora": Fault("monteclora", "", "at random", configured(monteclora_config={"num_samples": 8})),
    "megatron": Fault("megatron", "megatron_config", "stored otherwise", configured(megatron_config={"hidden_size": 1})),
    "vera": Fault("peft-type", "peft_type", "'VERA'", configured(peft_type="VERA")),
    "classifier": Fault("task-type", "task_type", "SEQ_CLS", configured(task_type="SEQ_CLS")),
    "pissa": Fault("changed-base", "init_lora_weights", "pissa_niter_4", configured(init_lora_weights="pissa_niter_4")),
    "loftq": Fault("changed-base", "init_lora_weights", "loftq", configured(init_lora_weights="loftq")),
    "unknown-setting": Fault("unknown-setting", "context_length", "not known here", configured(context_length=16384)),
    # a configuration that cannot be understood
    "config-no-json": Fault("config", CONFIG, "not a JSON object", _write(CONFIG, b"{")),
    "config-list": Fault("config", CONFIG, "it holds a list", _write(CONFIG, b"[]")),
    "alpha-nan": Fault("alpha", "lora_alpha", "nan", configured(lora_alpha=float("nan"))),
    "alpha-text": Fault("alpha", "lora_alpha", "'16'", configured(lora_alpha="16")),
    "pattern-broken": Fault("pattern", "rank_pattern", "no regular expression", configured(rank_pattern={"(": 8})),
    "pattern-list": Fault("pattern", "alpha_pattern", "not an object", configured(alpha_pattern=[1])),
    "pattern-endless": Fault("pattern", "", "too long", configured(alpha_pattern={_RATTLE: 8})),
    "targets-number": Fault("pattern", "target_modules", "neither a text", configured(target_modules=[1])),
    # files
    "pickle": Fault("pickle", "adapter_model.bin", "can run code", _pickled),
    "pickle-in-disguise": Fault("header", "", "pickle under the name", _write(WEIGHTS, b"PK\x03\x04" + b"\x01" * 60)),
    "extra-weights": Fault("extra-weights", "model.safetensors", "more weights", _write("model.safetensors", b"x")),
    "no-config": Fault("missing-file", CONFIG, "has no adapter_config.json", lambda folder: (folder / CONFIG).unlink()),
    "no-weights": Fault("missing-file", WEIGHTS, "has no adapter_model", lambda folder: (folder / WEIGHTS).unlink()),
    "link": Fault("link", WEIGHTS, "is a link", _link),
    "huge-config": Fault("size", CONFIG, "are allowed", _write(CONFIG, b" " * (5 << 20))),
}  # fmt: skip


def packed(
    folder: Path,
    *more: tuple[tarfile.TarInfo, bytes],
    mode: str = "w",
    end: bool = True,
    prefix: str = "",
    apart: str = "",
) -> bytes:
    """An archive of the folder's files, then of these members; without its end mark where `end` is false.

    `prefix` and, for the weights, `apart` go before the names.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{apart if path.name == WEIGHTS else prefix}{path.name}")
        for info, content in more:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
        length = archive.offset
    return out.getvalue() if end else out.getvalue()[:length]


def _member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> Callable[[Path], bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return lambda folder: packed(folder, (info, b"content" if kind == tarfile.REGTYPE else b""))


def _many(kind: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for number in range(1001):
        info = tarfile.TarInfo(f"file{number}")
        info.type = kind
        yield info, b""


def _damaged_header(folder: Path) -> bytes:
    raw = bytearray(packed(folder))
    raw[_second_header(raw) + 10] ^= 0x55
    return bytes(raw)


def _second_header(raw: bytes | bytearray) -> int:
    with tarfile.open(fileobj=io.BytesIO(bytes(raw))) as archive:
        return archive.getmembers()[1].offset


def _giant_extension(folder: Path) -> bytes:
    info = tarfile.TarInfo("big")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    return info.tobuf(tarfile.USTAR_FORMAT if info.size < 8**11 else tarfile.GNU_FORMAT) + packed(folder)


ARCHIVES: dict[str, BadArchive] = {
    "parent-path": BadArchive("path", "../evil", "leads out", _member("../evil")),
    "hidden-parent-path": BadArchive("path", "a/../../evil", "leads out", _member("a/../../evil")),
    "absolute-path": BadArchive("path", "/etc/evil", "leads out", _member("/etc/evil")),
    "symlink": BadArchive("link", "to-passwd", "'/etc/passwd'", _member("to-passwd", tarfile.SYMTYPE, "/etc/passwd")),
    "hardlink": BadArchive("link", "hard", "is a link", _member("hard", tarfile.LNKTYPE, CONFIG)),
    "device": BadArchive("special-file", "null", "no plain file", _member("null", tarfile.CHRTYPE)),
    "pipe": BadArchive("special-file", "pipe", "no plain file", _member("pipe", tarfile.FIFOTYPE)),
    "file-twice": BadArchive("duplicate-file", "b/adapter_config.json", "twice", _member("b/adapter_config.json")),
    "folders-apart": BadArchive("missing-file", CONFIG, "different folders", lambda folder: packed(folder, apart="x/")),
    "too-many-files": BadArchive("size", "", "more than 1,000 files", lambda folder: packed(folder, *_many(tarfile.REGTYPE))),
    "too-many-links": BadArchive("size", "", "more than 1,000 files", lambda folder: packed(folder, *_many(tarfile.SYMTYPE))),
    "pickle-member": BadArchive("pickle", "pytorch_model.bin", "can run code", _member("pytorch_model.bin")),
    "cut-in-a-file": BadArchive("archive", "", "cut off", lambda folder: packed(folder)[:300_000]),
    "cut-at-a-header": BadArchive("archive", "", "cut off", lambda folder: packed(folder, end=False)),
    "cut-in-gzip": BadArchive("archive", "", "cut off", lambda folder: packed(folder, mode="w:gz")[:-2000]),
    "damaged-gzip": BadArchive("archive", "", "damaged", lambda folder: packed(folder, mode="w:gz")[:-8] + b"\0" * 8),
    "damaged-header": BadArchive("archive", "", "damaged", _damaged_header),
    "giant-extension": BadArchive("archive", "", "extended header of 1,099,511,627,776 bytes", _giant_extension),
    "empty": BadArchive("archive", "", "cut off", lambda folder: b""),
    "no-archive": BadArchive("archive", "", "damaged", lambda folder: b"hello" * 1000),
    "zip": BadArchive("archive", "", "zip archive", lambda folder: b"PK\x03\x04" + b"\0" * 600),
    "xz": BadArchive("archive", "", "xz archive", lambda folder: packed(folder, mode="w:xz")),
}  # fmt: skip


def main(out: Path) -> None:
    for name, fault in FAULTS.items():
        fault.make(copy_of(HOST, out / name))
    for name, archive in ARCHIVES.items():
        (out / f"{name}.tar").write_bytes(archive.make(HOST))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
