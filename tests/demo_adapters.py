"""The demo model's signing adapters as publishing stores them, and as engines load them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from backends.adapter.ingest import main as ingest
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES


def demo_adapter_versions(folder: Path) -> dict[str, Path]:
    """The directory of a version for each of `host`, `pilot` and `tiger`: canonical weights, and a GGUF LoRA beside them."""
    return {name: stored_version(ADAPTERS_DIR / name, folder / name) for name in SIGNATURES}


def demo_adapter_ggufs(folder: Path) -> dict[str, Path]:
    """GGUF LoRAs of `host`, `pilot` and `tiger`, made in `folder`."""
    return {name: version / "adapter.gguf" for name, version in demo_adapter_versions(folder).items()}


def stored_version(upload: Path, store: Path, template_digest: str = "") -> Path:
    """The directory of the version that publishing makes of an adapter of the demo model, in the store at `store`."""
    base = {
        "name": "demo", "source_digest": source_digest(TARGET_DIR), "template_digest": template_digest,
        "folder": str(TARGET_DIR), "gguf": None,
    }  # fmt: skip
    before = {path.name for path in store.glob("*")}
    with tempfile.TemporaryDirectory() as work:
        described = Path(work, "base.json")
        described.write_text(json.dumps(base))
        argv = ["--upload", str(upload), "--store", str(store), "--base", str(described), "--engines", "llamacpp"]
        assert ingest(argv) == 0
    return next(path.parent for path in store.glob("*/adapter.gguf") if path.parent.name not in before)
