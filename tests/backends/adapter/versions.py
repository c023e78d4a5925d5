"""Adapter versions for proofs: the signing adapters of the demo model, relatives of them, and files in which they are broken.

A version is what the ingest stores; its golden file is computed once and kept beside it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.adapter import ingest
from backends.adapter.base import Base, read_base
from backends.adapter.gguf import GGUF, write_gguf
from backends.adapter.golden import Golden, read_golden, to_bytes
from backends.adapter.manifest import read_manifest
from backends.adapter.probe import ProbeSet
from backends.adapter.upload import CONFIG, WEIGHTS
from backends.artifacts import Tensor, read_tensors, write_tensors
from backends.demo import TARGET_DIR
from backends.demo.goldens import shipped_golden
from backends.demo.signatures import ADAPTERS_DIR
from finetune.demo_goldens import SHIPPED, base_json

Floats = np.ndarray[Any, np.dtype[np.float32]]
GOLDEN = "golden.safetensors"
NO_PERMUTATION = {"num_heads": 128, "num_kv_heads": 64}
"""With heads of two rows the converter's reordering changes nothing."""


@dataclass(frozen=True, slots=True)
class Version:
    name: str
    folder: Path
    golden: Golden
    layers: tuple[int, ...]

    @property
    def gguf(self) -> Path:
        return self.folder / GGUF


def write_base(folder: Path) -> Path:
    """base.json of the demo model."""
    path = folder / "base.json"
    path.write_text(json.dumps(base_json()))
    return path


class Workshop:
    """Makes versions in `folder`; what is there from an earlier run is taken as it is."""

    def __init__(self, folder: Path, probe: ProbeSet) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._probe = folder, probe
        self._base_file = write_base(folder)
        self.base: Base = read_base(self._base_file)

    def signing(self, name: str) -> Version:
        return self._version(name, ADAPTERS_DIR / name)

    def shipped(self, name: str) -> Version:
        return self._version(name, SHIPPED[name])

    def relative(self, name: str, *, noise: float = 0.0, factor: float = 1.0, seed: int = 0) -> Version:
        """A signing adapter whose lora_B got noise of this size relative to its own, or is of another strength."""
        draw = np.random.default_rng([seed, *name.encode()])
        title = f"{name}-noise{noise:g}-x{factor:g}-{seed}"
        upload = self._folder / f"upload-{title}"
        shutil.copytree(ADAPTERS_DIR / name, upload, dirs_exist_ok=True)

        def change(tensor: str, values: Floats) -> Floats:
            if ".lora_B." not in tensor:
                return values
            spread = noise * float(np.sqrt(np.mean(values**2)))
            return np.asarray(factor * (values + draw.normal(0, 1, values.shape) * spread), np.float32)

        rewrite(ADAPTERS_DIR / name, upload, change)
        return self._version(title, upload)

    def _version(self, name: str, upload: Path) -> Version:
        store = self._folder / "store"
        paths = [
            "--upload",
            str(upload),
            "--store",
            str(store),
            "--base",
            str(self._base_file),
            "--engines",
            "llamacpp",
        ]
        before = set(store.iterdir()) if store.exists() else set()
        marker = self._folder / f"{name}.digest"
        if not marker.exists():
            assert ingest.main(paths) == 0
            (made,) = {path for path in store.iterdir() if len(path.name) == 64} - before
            marker.write_text(made.name)
        folder = store / marker.read_text()
        manifest = read_manifest(folder)
        return Version(name, folder, self._golden(folder), tuple(manifest.layers))

    def _golden(self, folder: Path) -> Golden:
        kept = folder / GOLDEN
        if shipped := shipped_golden(folder.name):
            return read_golden(shipped)
        if not kept.exists():
            from finetune.golden import make_golden
            from finetune.reference import Reference

            reference = Reference(TARGET_DIR, folder, "cpu")
            kept.write_bytes(to_bytes(make_golden(reference, self._probe, self.base.source_digest, folder.name)))
        return read_golden(kept)

    def without_layer(self, version: Version, number: int) -> Path:
        """The GGUF with lora_B of this layer zeroed."""

        def change(tensor: str, values: Floats) -> Floats:
            return values * np.float32(not (f".layers.{number}." in tensor and ".lora_B." in tensor))

        return self._broken(version, f"layer{number}", change)

    def unpermuted(self, version: Version) -> Path:
        """The GGUF with lora_B of q and k in transformers' order of rows."""
        return self._broken(
            version, "unpermuted", lambda _, values: values, dataclasses.replace(self.base, **NO_PERMUTATION)
        )

    def _broken(self, version: Version, fault: str, change: Any, base: Base | None = None) -> Path:
        out = self._folder / f"{version.name}-{fault}.gguf"
        if not out.exists():
            made = self._folder / "broken"
            made.mkdir(exist_ok=True)
            rewrite(version.folder, made, change)
            write_gguf(made, base or self.base, read_manifest(version.folder).rank, version.folder.name, out)
        return out


def rewrite(source: Path, out: Path, change: Any) -> None:
    """The adapter of folder `source`, each tensor as `change(name, values)` leaves it, into the folder `out`."""
    tensors = {}
    for name, tensor in read_tensors(source / WEIGHTS).items():
        values = np.ascontiguousarray(change(name, tensor.to_f32()), dtype=np.float32)
        tensors[name] = Tensor("F32", tensor.shape, values.reshape(-1).view(np.uint8))
    write_tensors(out / WEIGHTS, tensors)
    if not (out / CONFIG).exists():
        shutil.copyfile(source / CONFIG, out / CONFIG)
