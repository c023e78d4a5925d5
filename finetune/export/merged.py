"""A model folder with the adapter merged into it: the base's weight files, its tokenizer and chat template, and how it was verified.

    canonical adapter -> merge file by file -> verify (child) -> in place

Verified: the log-probabilities of the base's probe set by the merged model against those by base and adapter, all in float32, held
against what rounding its matrices once more, at random, changes. A wrong scale, a missed matrix or a second rounding is larger.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.adapter.manifest import read_manifest
from backends.artifacts import read_json
from backends.modelfolder import stored_tensors, weight_files
from backends.plan import size_words
from finetune.errors import RecipeUnusable, TrainError
from finetune.export.adapter import Exported, base_facts, export_adapter, read_exported
from finetune.export.merge import Change, changes, merge_file
from finetune.export.source import EXPORT, Source, require_full_precision
from finetune.export.working import working
from finetune.jsonchild import Tell, run, silent

RECORD = "forgegate_merge.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_SPARE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Merged:
    """Differences are root mean squares over tokens, in nats."""

    folder: Path
    base: Path
    adapter_digest: str
    num_tensors: int
    """That the adapter changed."""
    dtypes: tuple[str, ...]
    size_bytes: int
    num_tokens: int
    """On which it was verified."""
    difference: float
    """Of the merged model from base and adapter."""
    limit: float
    """What rounding explains."""
    effect: float
    """Of the adapter itself."""
    is_new: bool

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "base": str(self.base)}


def export_merged(source: Source, out: Path, tell: Tell = silent, device: str = "") -> Merged:
    """Whole and verified, or not at all. Raises TrainError, BackendError, OSError."""
    require_full_precision(source.base)
    if not (out / RECORD).is_file():
        _refuse(out, source)
    with working(out) as work:
        exported = _canonical(source, work, tell, device)
        if (known := _known(out, source.base)) and known.adapter_digest == exported.digest:
            return known
        _refuse(out, source)
        made = work / "model"
        made.mkdir()
        names, dtypes = _write(source.base, exported, made, tell)
        found = run("finetune.export.verify", _orders(made, exported, names, work, device), tell)
        if not found["is_within"]:
            raise TrainError(_far(found))
        merged = Merged(
            folder=out, base=source.base, adapter_digest=exported.digest, num_tensors=len(names), dtypes=dtypes,
            size_bytes=sum(path.stat().st_size for path in made.iterdir()), num_tokens=int(found["num_tokens"]),
            difference=float(found["difference"]), limit=float(found["limit"]), effect=float(found["effect"]), is_new=True,
        )  # fmt: skip
        (made / RECORD).write_text(json.dumps({**merged.as_json(), "folder": "", "is_new": False}, indent=2) + "\n")
        if out.is_dir():
            out.rmdir()
        made.rename(out)
        return merged


def _canonical(source: Source, work: Path, tell: Tell, device: str) -> Exported:
    """With its references: what is there already is not computed again."""
    known = read_exported(source.adapter, source.base)
    if known and read_manifest(source.adapter).base.source_digest == base_facts(source.base)["source_digest"]:
        return known
    # Not in `work` itself: that is locked for as long as it is there, and an export locks the folder above it.
    return export_adapter(source, source.run / EXPORT if source.run else work / "canonical" / "adapter", tell, device)


def _write(base: Path, exported: Exported, made: Path, tell: Tell) -> tuple[list[str], tuple[str, ...]]:
    """Names of the changed tensors, and the dtypes that they have."""
    files = weight_files(base)
    changed = changes(exported.folder)
    done: list[str] = []

    def merging(name: str) -> None:
        tell("merge", name, len(done), len(changed))
        done.append(name)

    for path in files:
        merge_file(path, made / path.name, changed, merging)
    if missed := sorted(changed.keys() - set(done)):
        raise RecipeUnusable(
            f"{base} has no tensor {missed[0]}, which the adapter changes: name the base it was trained on"
        )
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix not in _WEIGHTS and path.name != RECORD:
            shutil.copyfile(path, made / path.name)
    return done, _dtypes(files, changed)


def _dtypes(files: list[Path], changed: Mapping[str, Change]) -> tuple[str, ...]:
    return tuple(sorted({tensor.dtype for name, tensor in stored_tensors(files).items() if name in changed}))


def _orders(made: Path, exported: Exported, names: list[str], work: Path, device: str) -> tuple[object, ...]:
    listed = work / "tensors.json"
    listed.write_text(json.dumps(names))
    where = ("--device", device) if device else ()
    return ("--merged", made, "--references", exported.folder, "--tensors", listed, *where)


def _known(out: Path, base: Path) -> Merged | None:
    """What an earlier export left, where its weight files are as long as they were."""
    if not (out / RECORD).is_file():
        return None
    told = read_json(out / RECORD)
    try:
        size_bytes = sum(path.stat().st_size for path in out.iterdir() if path.name != RECORD)
        known = Merged(**{**told, "folder": out, "base": base, "dtypes": tuple(told["dtypes"])})
    except (KeyError, TypeError):
        return None
    return known if known.size_bytes == size_bytes else None


def _refuse(out: Path, source: Source) -> None:
    """Raises RecipeUnusable before anything long is done."""
    if source.run and out.resolve() == (source.run / EXPORT).resolve():
        raise RecipeUnusable(f"{out} is where the run's adapter is exported: name another folder with --out")
    if out.is_file():
        raise RecipeUnusable(f"{out} is a file: name a new folder with --out")
    if out.is_dir() and any(out.iterdir()):
        raise RecipeUnusable(f"{out} is not empty: name a new folder with --out")
    needed = sum(path.stat().st_size for path in weight_files(source.base)) + _SPARE_BYTES
    free = shutil.disk_usage(_there(out)).free
    if free < needed:
        raise RecipeUnusable(
            f"{out.parent} has {size_words(free)} free, the merged model takes {size_words(needed)}: free some space, or name another --out"
        )


def _there(out: Path) -> Path:
    """The nearest folder above that exists."""
    return next(folder for folder in out.absolute().parents if folder.is_dir())


def _far(found: Mapping[str, Any]) -> str:
    return (
        f"the merged model is not what base and adapter are: its log-probabilities differ by {found['difference']:.4f} nat, rounding "
        f"explains {found['limit']:.4f}. Nothing was written; serve the adapter itself, and report this with the model's architecture"
    )
