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


@pytest.fixture(scope="session")
def exact_engine(
    demo_gguf: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineProcess]:
    """One whose answers have the same bits in any company and after any prefix."""
    log = tmp_path_factory.mktemp("exact") / "engine.log"
    flags = ("--batch-invariant", "true", "--n-seq-max", "8", "--n-ctx", "4096")
    with engine_process(demo_gguf, free_port(), log, *flags) as process:
        yield process


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama-cpp-python's source distribution: the one that the wheel's build left, else fetched as users' is (75 MB, once in a run)."""
    from backends.errors import PrepareFailed
    from backends.llamacpp import toolkit

    kept = toolkit.kept_archive()
    if kept.is_file():
        return kept
    try:
        return toolkit.download(tmp_path_factory.mktemp("sdist"))
    except PrepareFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def converter_tools(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tools with llama.cpp's converter in it."""
    from backends.llamacpp import toolkit

    folder = tmp_path_factory.mktemp("tools")
    toolkit.extract(sdist, folder / f"llama.cpp-{toolkit.VERSION}")
    return folder
