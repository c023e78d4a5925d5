"""llama.cpp's own converters of models and of LoRA adapters, taken once from the source distribution that the engine is built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.base import Tell
from backends.errors import PrepareFailed

VERSION = "0.3.36"
"""Of llama-cpp-python, as the extra `llamacpp` pins it."""
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of its source distribution."""
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
SCRIPT = "convert_hf_to_gguf.py"
LORA_SCRIPT = "convert_lora_to_gguf.py"
DOWNLOAD_TIMEOUT_S = 900.0
_INSIDE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
_WANTED = (
    SCRIPT, LORA_SCRIPT, "conversion/", "gguf-py/gguf/", "models/templates/", "models/ggml-vocab-llama-spm.gguf",
    "models/ggml-vocab-gpt-neox.gguf", "LICENSE",
)  # fmt: skip

PROGRESS = "progress: "
"""Begins a line for the user in the output of a child that prepares a model."""


def ensure_converter(tools_dir: Path, tell: Tell) -> Path:
    """The folder of both scripts and what they import; fetched at first use. Safe for several processes. Raises PrepareFailed."""
    folder = tools_dir / f"llama.cpp-{VERSION}"
    if _is_installed(folder):
        return folder
    try:
        tools_dir.mkdir(parents=True, exist_ok=True)
        with locked(tools_dir / f".{folder.name}.lock", tell):
            if not _is_installed(folder):
                _install(folder, tell)
    except OSError as exc:
        raise PrepareFailed(f"llama.cpp's converter cannot be put into {tools_dir}: {exc.strerror or exc}") from exc
    return folder


def _is_installed(folder: Path) -> bool:
    return (folder / SCRIPT).is_file() and (folder / LORA_SCRIPT).is_file()


def kept_archive() -> Path:
    """Where the wheel's build leaves the source distribution, and where one fetched by hand is found."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "forgegate" / "sdists" / ARCHIVE


@contextmanager
def locked(path: Path, tell: Tell) -> Iterator[None]:
    """Only one process at a time; the others wait for it."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process is at the same work: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _install(folder: Path, tell: Tell) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        work = Path(name)
        archive = kept_archive()
        if not _is_right(archive):
            tell("fetching llama.cpp's converter (75 MB, once)")
            archive = download(work)
        made = work / "made"
        extract(archive, made)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _is_right(archive: Path) -> bool:
    try:
        with archive.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    except OSError:
        return False


def download(work: Path) -> Path:
    """The source distribution, into `work`; pip holds it against `SHA256` before it looks inside. Raises PrepareFailed."""
    wanted = work / "wanted.txt"
    wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    argv = [
        sys.executable, "-m", "pip", "download", "-r", str(wanted), "--no-deps", "--no-binary", "llama-cpp-python",
        "--dest", str(work), "--disable-pip-version-check", "--no-input", "--quiet",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as exc:
        raise _cannot_fetch(f"pip took longer than {DOWNLOAD_TIMEOUT_S:g} s") from exc
    archive = work / ARCHIVE
    if done.returncode != 0 or not _is_right(archive):
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        raise _cannot_fetch((lines or done.stderr.strip().splitlines() or ["pip left no file"])[-1].strip())
    return archive


def _cannot_fetch(why: str) -> PrepareFailed:
    return PrepareFailed(
        f"llama.cpp's converter cannot be fetched: {why}; give the package index that pip shall use (PIP_INDEX_URL), or put "
        f"{ARCHIVE} from PyPI at {kept_archive()}, or serve a GGUF file"
    )


def extract(archive: Path, target: Path) -> None:
    """The converters and what they import. Raises PrepareFailed."""
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                inner = member.name.removeprefix(_INSIDE)
                if inner != member.name and inner.startswith(_WANTED) and member.isfile():
                    member.name = inner
                    opened.extract(member, target, filter="data")
    except tarfile.TarError as exc:
        raise PrepareFailed(f"{archive}: {exc}") from exc
    for script in (SCRIPT, LORA_SCRIPT):
        if not (target / script).is_file():
            raise PrepareFailed(f"{archive}: it holds no {script}")
