"""An adapter in the form that is published: canonical PEFT, its manifest, its references; named by its content."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backends import artifacts, modelfolder
from backends.adapter.golden import GoldenError, read_golden
from backends.adapter.manifest import MANIFEST, VersionUnusable, file_digest, read_manifest, version_digest
from backends.adapter.sealed import put_folder
from backends.adapter.upload import CONFIG, REFERENCE, WEIGHTS
from backends.demo import TARGET_DIR
from finetune.errors import RecipeUnusable, TrainError
from finetune.export.source import EXPORT, Source
from finetune.export.working import working
from finetune.jsonchild import Tell, run, silent
from finetune.recipe.base import DEMO
from finetune.recipe.folders import digest_cache

FILES = (CONFIG, WEIGHTS, MANIFEST, REFERENCE)
_ENGINES = "vllm"
"""Without llama.cpp's own file: gateways make it, by the version of their engine."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder that `forgegate adapters publish` takes; `digest` has 64 hex digits."""

    folder: Path
    base: Path
    digest: str
    rank: int
    num_parameters: int
    size_bytes: int
    num_tokens: int
    """That have references."""
    is_new: bool
    """False: it was there already, and whole."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "base": str(self.base)}


def export_adapter(source: Source, out: Path, tell: Tell = silent, device: str = "") -> Exported:
    """Into `out`, whole or not at all; what is there already and is just this stays. Raises TrainError, BackendError, OSError."""
    if not _is_export(out):
        _refuse_other(out, source.adapter)
    with working(out) as work:
        tell("digest", "hashing the base's weights", 0, 0)
        described = work / "base.json"
        described.write_text(json.dumps(base_facts(source.base)), encoding="utf-8")
        arguments = ("--upload", source.adapter, "--store", work / "store", "--base", described, "--engines", _ENGINES)
        done = run("backends.adapter.ingest", arguments, tell)
        version = work / "store" / str(done["digest"])
        if (known := read_exported(out, source.base)) and known.digest == done["digest"]:
            return known
        _refuse_other(out, source.adapter)
        made = work / "made"
        made.mkdir()
        for name in (CONFIG, WEIGHTS, MANIFEST):
            shutil.copyfile(version / name, made / name)
        if (of_run := _of_run(source)) and of_run.digest == done["digest"]:
            shutil.copyfile(of_run.folder / REFERENCE, made / REFERENCE)
        else:
            where = ("--device", device) if device else ()
            golden = ("--base", source.base, "--adapter", version, "--out", made / REFERENCE, *where)
            run("finetune.golden", golden, tell)
        put_folder(made, out)
    exported = read_exported(out, source.base)
    if exported is None:
        raise TrainError(f"{out} was changed while it was written: export again, into another folder")
    return replace(exported, is_new=True)


def _of_run(source: Source) -> Exported | None:
    """What the run's training has exported, with references that take minutes."""
    return read_exported(source.run / EXPORT, source.base) if source.run else None


def read_exported(folder: Path, base: Path) -> Exported | None:
    """What an earlier export left, where it is whole; None where it is not."""
    try:
        manifest = read_manifest(folder)
        found = {name: file_digest(folder / name) for name in manifest.files}
        golden = read_golden(folder / REFERENCE)
    except (GoldenError, OSError, VersionUnusable):
        return None
    digest = version_digest(found, manifest.base.source_digest, manifest.base.template_digest)
    if not digest == manifest.digest == golden.adapter_digest:
        return None
    return Exported(
        folder=folder, base=base, digest=digest, rank=manifest.rank, num_parameters=manifest.num_parameters,
        size_bytes=manifest.size_bytes, num_tokens=len(golden.base), is_new=False,
    )  # fmt: skip


def base_facts(base: Path) -> dict[str, Any]:
    """The base as `backends.adapter.ingest` is told it, by the names that a gateway gives. Raises BackendError."""
    template = modelfolder.chat_template(base, modelfolder.read_optional_json(base / "tokenizer_config.json")) or ""
    return {
        "name": DEMO if base == TARGET_DIR else base.name,
        "source_digest": artifacts.source_digest(base, digest_cache()),
        "template_digest": f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
        "folder": str(base),
    }


def _is_export(out: Path) -> bool:
    """Of whatever adapter, whole or not."""
    try:
        read_manifest(out)
    except VersionUnusable:
        return False
    return True


def _refuse_other(out: Path, adapter: Path) -> None:
    """Raises RecipeUnusable where files would be lost that are no earlier export: those have a manifest."""
    if out.resolve() == adapter.resolve():
        raise RecipeUnusable(f"{out} is the adapter itself, which is left as it is: name another folder with --out")
    if out.is_file():
        raise RecipeUnusable(f"{out} is a file: name a folder with --out")
    own = FILES if _is_export(out) else ()
    strange = sorted(path.name for path in out.iterdir() if path.name not in own) if out.is_dir() else []
    if strange:
        raise RecipeUnusable(
            f"{out} holds other files ({', '.join(strange[:3])}): name an empty or a new folder with --out"
        )
