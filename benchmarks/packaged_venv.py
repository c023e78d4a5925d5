"""An environment of its own for llama-cpp-python's packaged server, whose web framework pins are not ours."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.peer_launch import BINDING, PeerError, binding

_EXTRAS = ("uvicorn", "fastapi", "pydantic-settings", "sse-starlette", "starlette-context", "PyYAML")


def default_folder() -> Path:
    """Kept between runs: building the package takes minutes. Raises PeerError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "forgegate" / f"packaged-{binding().version}-py{sys.version_info.major}.{sys.version_info.minor}"


def ensure(folder: Path, wheel: Path | None, say: Callable[[str], None]) -> Path:
    """The interpreter of `folder`, made and filled if need be; `wheel` saves the build. Raises PeerError."""
    python = folder / "bin" / "python"
    if _works(python):
        return python
    say(f"making {folder} for llama-cpp-python's server" + ("" if wheel else " (building it takes minutes)"))
    venv.create(folder, with_pip=True, clear=True)
    package = str(wheel) if wheel else f"{BINDING}=={binding().version}"
    done = subprocess.run(
        (str(python), "-m", "pip", "install", "--quiet", package, *_EXTRAS),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode or not _works(python):
        raise PeerError(f"llama-cpp-python's server could not be installed into {folder}:\n{done.stderr[-2000:]}")
    return python


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    return (
        subprocess.run((str(python), "-c", "import llama_cpp.server.app"), capture_output=True, check=False).returncode
        == 0
    )
