"""Digests of single large files, computed once per path, size and time of change."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from backends.errors import ModelUnusable


def file_digest(path: Path, cache: Path) -> str:
    """`sha256:<hex>` of the file's bytes; `cache` is a JSON file that remembers. Blocks while it reads. Raises ModelUnusable."""
    try:
        stat = path.stat()
        stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        known = _read(cache)
        if stamp not in known:
            with path.open("rb") as file:
                known = {**_read(cache), stamp: f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"}
            _write(cache, known)
    except OSError as exc:
        raise ModelUnusable(f"{path}: {exc.strerror or exc}") from exc
    return known[stamp]


def _read(cache: Path) -> dict[str, str]:
    try:
        content = json.loads(cache.read_bytes())
    except (OSError, ValueError):
        return {}  # a cache: absent or damaged means empty
    return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}


def _write(cache: Path, known: dict[str, str]) -> None:
    with suppress(OSError):  # not remembered: hashed again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_suffix(".tmp")
        temporary.write_text(json.dumps(known, indent=0), encoding="utf-8")
        temporary.replace(cache)
