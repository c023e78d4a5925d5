"""Models for the engines under contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo_adapters import demo_adapter_ggufs


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backends.demo.folders import TARGET_DIR
    from backends.llamacpp.convert import ensure_gguf

    return ensure_gguf(TARGET_DIR, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def adapter_ggufs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return demo_adapter_ggufs(tmp_path_factory.mktemp("adapters"))
