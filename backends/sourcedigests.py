"""Source digests of model folders, kept beside what was derived of them. Standard library only: the gateway asks, too.

A digest is kept under a stamp of the folder's files (path, size, mtime): it is never that of other content.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from backends.modelfolder import tokenizer_files, weight_files

CACHE = "source-digests.json"


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
