"""Derive the GGUF of a model folder, in the engine's own environment: the gateway has no numpy.

python -m backends.llamacpp.prepare MODEL_DIR CACHE_DIR    prints the GGUF's path; `error: ...` and exit code 3 if it cannot
"""

from __future__ import annotations

import sys
from pathlib import Path

from backends.llamacpp.convert import ConvertError, ensure_gguf


def main(argv: list[str]) -> int:
    try:
        print(ensure_gguf(Path(argv[0]), Path(argv[1])))
    except ConvertError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
