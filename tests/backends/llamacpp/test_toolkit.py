"""llama.cpp's converter: fetched once, held against its checksum, put in place whole."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import re
import tarfile
import tomllib
from pathlib import Path

import pytest

from backends.errors import PrepareFailed
from backends.llamacpp import toolkit
from backends.llamacpp.folder import known_architectures
from backends.llamacpp.toolkit import LORA_SCRIPT, SCRIPT, VERSION, ensure_converter, kept_archive

ROOT = Path(__file__).resolve().parents[3]


def quiet(_: str) -> None:
    pass


def write_archive(path: Path, names: list[str]) -> str:
    """A source distribution with these files; its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(f"llama_cpp_python-{VERSION}/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an archive fetched by hand is found, with one in place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inner = "vendor/llama.cpp/"
    wanted = [f"{inner}{name}" for name in (SCRIPT, LORA_SCRIPT, "conversion/base.py", "gguf-py/gguf/__init__.py")]
    names = [*wanted, f"{inner}ggml/src/x.c", "README.md"]
    monkeypatch.setattr(toolkit, "SHA256", write_archive(kept_archive(), names))
    return kept_archive()


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_the_pins_agree() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["llamacpp"]
    assert f"llama-cpp-python=={VERSION}" in extras


def test_only_what_is_needed_is_unpacked(kept: Path, no_index: None, tmp_path: Path) -> None:
    folder = ensure_converter(tmp_path / "tools", quiet)
    assert folder == tmp_path / "tools" / f"llama.cpp-{VERSION}"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "conversion/base.py", SCRIPT, LORA_SCRIPT, "gguf-py/gguf/__init__.py",
    ]  # fmt: skip
    kept.unlink()
    assert ensure_converter(tmp_path / "tools", quiet) == folder


def test_a_folder_of_an_earlier_release_without_the_adapters_converter_is_made_anew(
    kept: Path, no_index: None, tmp_path: Path
) -> None:
    folder = ensure_converter(tmp_path / "tools", quiet)
    (folder / LORA_SCRIPT).unlink()
    assert (ensure_converter(tmp_path / "tools", quiet) / LORA_SCRIPT).is_file()


def test_another_archive_is_not_taken(kept: Path, no_index: None, tmp_path: Path) -> None:
    kept.write_bytes(kept.read_bytes() + b"x")
    told: list[str] = []
    with pytest.raises(
        PrepareFailed, match=r"cannot be fetched: .*put llama_cpp_python-.*\.tar\.gz from PyPI at .*or serve a GGUF"
    ):
        ensure_converter(tmp_path / "tools", told.append)
    assert told == ["fetching llama.cpp's converter (75 MB, once)"]
    assert [path.name for path in (tmp_path / "tools").iterdir() if path.is_dir()] == []


def test_an_archive_of_another_kind(kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolkit, "SHA256", write_archive(kept, ["README.md"]))
    with pytest.raises(PrepareFailed, match=f"holds no {SCRIPT}"):
        ensure_converter(tmp_path / "tools", quiet)


def test_a_folder_that_cannot_be_written(kept: Path) -> None:
    with pytest.raises(PrepareFailed, match="cannot be put into /proc/nowhere"):
        ensure_converter(Path("/proc/nowhere"), quiet)


def _ensure(tools_dir: Path, sha256: str) -> Path:
    toolkit.SHA256 = sha256
    return ensure_converter(tools_dir, quiet)


def test_processes_that_race_all_get_a_whole_one(kept: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.starmap(_ensure, [(tmp_path / "tools", toolkit.SHA256)] * 6)
    assert len(set(folders)) == 1
    assert (folders[0] / SCRIPT).is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_known_architectures_are_the_converters(converter_tools: Path) -> None:
    text = (converter_tools / f"llama.cpp-{VERSION}" / "conversion" / "__init__.py").read_text()
    table = text[text.index("TEXT_MODEL_MAP") : text.index("MMPROJ_MODEL_MAP")]
    assert set(re.findall(r'^ +"([^"]+)": "', table, re.MULTILINE)) == known_architectures()
