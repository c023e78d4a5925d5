"""The demo model as an adapter's base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from tests.backends.adapter.ingesting import Ingester

TEMPLATE_DIGEST = "sha256:" + "7" * 64


@pytest.fixture(scope="session")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.json of the demo model's folder."""
    told = {
        "name": "demo",
        "source_digest": source_digest(TARGET_DIR),
        "template_digest": TEMPLATE_DIGEST,
        "folder": str(TARGET_DIR),
        "gguf": None,
    }
    path = tmp_path_factory.mktemp("base") / "base.json"
    path.write_text(json.dumps(told))
    return path


@pytest.fixture
def ingester(base_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ingester:
    return Ingester(base_file, tmp_path / "store", capsys)
