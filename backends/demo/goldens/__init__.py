"""Goldens of the adapters that are shipped, by version digest: their first publish is provable where no torch is.

Made anew with `python -m finetune.demo_goldens`.
"""

from pathlib import Path

GOLDENS_DIR = Path(__file__).parent


def shipped_golden(digest: str) -> Path | None:
    """The golden file of the version with this digest (64 hex digits); None where none is shipped."""
    path = GOLDENS_DIR / f"{Path(digest).name}.safetensors"
    return path if path.is_file() else None
