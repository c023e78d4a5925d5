"""The files that a run depends on, as they were when it began: a resume on others would be another run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.recipe.recipe import Recipe

_CHUNK = 1 << 20
BASE_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja")


def files_of(recipe: Recipe) -> dict[str, Any]:
    """Digests of the data; names and sizes of the base's files, whose bytes an export digests."""
    measured = recipe.ewc.sources if recipe.ewc else ()
    sources = (*recipe.data.sources, *recipe.data.eval_sources, *recipe.data.general, *measured)
    return {
        "data": {str(source.path): _digest(source.path) for source in sources if source.path.is_file()},
        "base": {path.name: path.stat().st_size for path in _base_files(recipe.base)},
    }


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs, in words; nothing where the run kept no record of its files."""
    for path, digest in (then.get("data") or {}).items():
        if path in now["data"] and now["data"][path] != digest:
            yield f"{path} has other rows than when the run began"
    base = then.get("base") or {}
    differing = sorted(name for name in {*base, *now["base"]} if base and base.get(name) != now["base"].get(name))
    if differing:
        yield f"the base model's files differ from when the run began: {', '.join(differing[:3])}"


def _base_files(folder: Path) -> Iterator[Path]:
    for pattern in BASE_FILES:
        yield from sorted(folder.glob(pattern))


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            sha.update(block)
    return f"sha256:{sha.hexdigest()}"
