"""Runs llama.cpp's converter in an interpreter that has torch and transformers, and has it write the digests of its source.

python -m backends.llamacpp.hf_to_gguf CONVERTER_DIR MODEL_DIR OUT NAME SOURCE_DIGEST RECIPE_DIGEST

The digests are among the first entries of the file's metadata, written with all others: a second pass over a file of many
gigabytes is not needed.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from backends.llamacpp.toolkit import SCRIPT


def main(argv: list[str]) -> None:
    converter, model_dir, out, name, source_digest, recipe_digest = argv
    sys.path[:0] = [converter, str(Path(converter) / "gguf-py")]
    import gguf

    original = gguf.GGUFWriter.__init__

    def with_digests(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        self.add_string("forgegate.source_digest", source_digest)
        self.add_string("forgegate.recipe_digest", recipe_digest)

    gguf.GGUFWriter.__init__ = with_digests
    sys.argv = [SCRIPT, model_dir, "--outfile", out, "--outtype", "auto", "--model-name", name]
    runpy.run_path(str(Path(converter) / SCRIPT), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
