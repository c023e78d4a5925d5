"""Models that Hugging Face's own tools have downloaded: where they keep them, read only.

<cache>/models--ORG--NAME/refs/<branch or tag>      the commit that it means
<cache>/models--ORG--NAME/snapshots/<commit>/       its files
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from backends.errors import ModelUnusable
from backends.hub.names import MAIN, HubName
from backends.modelfolder import tokenizer_files, weight_files


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """HF_HUB_CACHE, or `hub` in HF_HOME, or in the user's own cache."""
    if given := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(given)).expanduser()
    cache = env.get("XDG_CACHE_HOME") or "~/.cache"
    home = env.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def find_cached(name: HubName, cache: Path) -> Path | None:
    """The folder of its safetensors model; None where it is not there, or not whole."""
    repository = cache / f"models--{name.repo.replace('/', '--')}"
    commit = name.revision if name.is_commit else _commit_of(repository, name.revision or MAIN)
    folder = repository / "snapshots" / commit
    if not commit or not (folder / "config.json").is_file():
        return None
    try:
        weight_files(folder)
        tokenizer_files(folder)
    except (ModelUnusable, OSError):
        return None
    return folder


def _commit_of(repository: Path, revision: str) -> str:
    try:
        return (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
