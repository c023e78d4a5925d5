"""A real engine process on the demo model, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine_process import EngineProcess, engine_process


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from backends.demo.folders import TARGET_DIR
    from backends.llamacpp.convert import ensure_gguf

    return ensure_gguf(TARGET_DIR, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def engine(
    demo_gguf: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with engine_process(demo_gguf, free_port(), log, "--n-ctx", "4096", "--n-seq-max", "8") as process:
        yield process
        text = log.read_text()
        assert "Traceback" not in text, text
