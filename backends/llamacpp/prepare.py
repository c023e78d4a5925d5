"""Derive the GGUF of a model folder, in the engine's own environment: the gateway has no numpy.

python -m backends.llamacpp.prepare MODEL_DIR CACHE_DIR TOOLS_DIR CONVERTER_PYTHON

prints lines `progress: ...` and at last the GGUF's path; `error: ...` and exit code 3 if it cannot. CONVERTER_PYTHON has torch and
transformers; it is not used for the demo family, and may be empty then.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backends.errors import BackendError
from backends.llamacpp.derive import Tools, derive
from backends.llamacpp.toolkit import PROGRESS


def main(argv: list[str]) -> int:
    model_dir, cache_dir, tools_dir, python = argv
    try:
        print(derive(Path(model_dir), Path(cache_dir), Tools(Path(tools_dir), python), _tell), flush=True)
    except BackendError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 3
    return 0


def _tell(text: str) -> None:
    print(f"{PROGRESS}{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
