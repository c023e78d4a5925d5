"""The folder of PYTHONPATH in which any vLLM finds what is ours inside its processes, and nothing besides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from backends.atomicfile import atomic_path
from backends.errors import EngineUnavailable
from backends.vllm.inside import guard, mends

GUARD_MODULE = "forgegate_vllm_guard"
MENDS_MODULE = "forgegate_vllm_mends"
PLUGIN = "forgegate"
"""Under this name vLLM knows the mends."""
# A plugin is what an installed distribution says it is: two small files are what makes one.
_INSTALLED = "forgegate_vllm-1.dist-info"
_METADATA = "Metadata-Version: 2.1\nName: forgegate-vllm\nVersion: 1\n"
_ENTRY_POINTS = f"[vllm.general_plugins]\n{PLUGIN} = {MENDS_MODULE}:mend\n"


def place(tools_dir: Path) -> Path:
    """Blocks. Raises EngineUnavailable."""
    files = _files()
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    folder = tools_dir / f"vllm-guard-{digest[:12]}"
    for name, content in files.items():
        path = folder / name
        try:
            if not path.exists() or path.read_bytes() != content:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
        except OSError as exc:
            raise EngineUnavailable(f"cannot write {path}: {exc.strerror or exc}") from exc
    return folder


def plugins(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables under which vLLM loads the mends: a user's list of plugins would leave them out."""
    listed = environ.get("VLLM_PLUGINS")
    return {} if listed is None else {"VLLM_PLUGINS": f"{listed},{PLUGIN}" if listed else PLUGIN}


def _files() -> dict[str, bytes]:
    return {
        f"{GUARD_MODULE}.py": Path(guard.__file__).read_bytes(),
        f"{MENDS_MODULE}.py": Path(mends.__file__).read_bytes(),
        f"{_INSTALLED}/METADATA": _METADATA.encode(),
        f"{_INSTALLED}/entry_points.txt": _ENTRY_POINTS.encode(),
    }
