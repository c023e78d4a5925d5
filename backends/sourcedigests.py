"""Source digests of model folders, and what is kept of them. Standard library only: the gateway asks, too.

A digest is kept under a stamp of the folder's files (path, size, mtime): it is never that of other content.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from backends.derivation import source_of
from backends.errors import ModelUnusable
from backends.modelfolder import StoredTensor, tensors_of, tokenizer_files, weight_files

CACHE = "source-digests.json"
_PIECE_BYTES = 16 << 20


def source_digest(model_dir: Path, cache_dir: Path | None = None) -> str:
    """`sha256:<hex>` over the model's content: every tensor's name, dtype, shape and bytes in the order of names, then the tokenizer.

    How the tensors are spread over files, and how the JSON is laid out, does not change it. Of a folder that is another form of other
    weights it is their digest (`backends.derivation`). With `cache_dir`, a digest is computed once per (path, size, mtime) of the files.
    Blocks while it reads. Raises ModelUnusable.
    """
    try:
        if cache_dir is None:
            return source_of(model_dir, compute_digest(model_dir))
        stamp = stamp_of(model_dir)
        cached = known_digests(cache_dir)
        if stamp not in cached:
            digest = compute_digest(model_dir)
            # Read again: another process may have added its own while we hashed. A lost entry costs one more hashing, nothing else.
            cached = {**known_digests(cache_dir), stamp: digest}
            _remember(cache_dir, cached)
        return source_of(model_dir, cached[stamp])
    except OSError as exc:
        raise ModelUnusable(f"{exc.filename or model_dir}: {exc.strerror or exc}") from exc


def compute_digest(model_dir: Path) -> str:
    """Raises ModelUnusable, OSError."""
    digest = hashlib.sha256()
    for name, (path, tensor) in sorted(_stored(model_dir).items()):
        head = json.dumps([name, tensor.dtype, list(tensor.shape)], separators=(",", ":")).encode()
        digest.update(len(head).to_bytes(8, "little") + head)
        with path.open("rb") as file:
            file.seek(tensor.begin)
            _add(digest, file, tensor.num_bytes)
    for path in tokenizer_files(model_dir):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_read_json(path, content), sort_keys=True, separators=(",", ":")).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return f"sha256:{digest.hexdigest()}"


def _stored(model_dir: Path) -> dict[str, tuple[Path, StoredTensor]]:
    found: dict[str, tuple[Path, StoredTensor]] = {}
    for path in weight_files(model_dir):
        for name, tensor in tensors_of(path):
            if name in found:
                raise ModelUnusable(f"{path}: tensor {name} is stored twice")
            found[name] = path, tensor
    return found


def _add(digest: Any, file: Any, num_bytes: int) -> None:
    while num_bytes > 0:
        piece = file.read(min(num_bytes, _PIECE_BYTES))
        if not piece:
            raise ModelUnusable(f"{file.name}: it became shorter while it was read")
        digest.update(piece)
        num_bytes -= len(piece)


def _read_json(path: Path, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise ModelUnusable(f"{path}: not valid JSON: {exc}") from exc


def _remember(cache_dir: Path, digests: dict[str, str]) -> None:
    with atomic_path(cache_dir / CACHE) as temporary:
        temporary.write_text(json.dumps(digests, indent=0, sort_keys=True), encoding="utf-8")


def stamp_of(model_dir: Path) -> str:
    """Raises ModelUnusable: not whole; OSError."""
    files = [*weight_files(model_dir), *tokenizer_files(model_dir)]
    marks = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def known_digests(cache_dir: Path) -> dict[str, str]:
    """By stamp."""
    try:
        content = json.loads((cache_dir / CACHE).read_bytes())
    except (OSError, ValueError):
        return {}  # a cache: absent or damaged means empty
    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}
