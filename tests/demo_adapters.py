"""The demo model and its signing adapters as an engine loads them."""

from __future__ import annotations

import json
from pathlib import Path

from backends.adapter.ingest import main as ingest
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES


def demo_adapter_ggufs(folder: Path) -> dict[str, Path]:
    """GGUF LoRAs of `host`, `pilot` and `tiger`, made in `folder` as publishing makes them."""
    base = folder / "base.json"
    told = {
        "name": "demo",
        "source_digest": source_digest(TARGET_DIR),
        "template_digest": "",
        "folder": str(TARGET_DIR),
    }
    base.write_text(json.dumps({**told, "gguf": None}))
    return {name: _ingest(ADAPTERS_DIR / name, folder / name, base) for name in SIGNATURES}


def _ingest(upload: Path, store: Path, base: Path) -> Path:
    argv = ["--upload", str(upload), "--store", str(store), "--base", str(base), "--engines", "llamacpp"]
    assert ingest(argv) == 0
    return next(store.glob("*/adapter.gguf"))
