"""Runs llama.cpp's converter of adapters in an interpreter that has torch and transformers, and has it write forgegate's digests.

python -m backends.llamacpp.lora_to_gguf CONVERTER_DIR ADAPTER_DIR BASE_DIR OUT SOURCE_DIGEST VERSION_DIGEST
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from backends.llamacpp.toolkit import LORA_SCRIPT


def main(argv: list[str]) -> None:
    converter, adapter, base, out, source_digest, version_digest = argv
    sys.path[:0] = [converter, str(Path(converter) / "gguf-py")]
    import gguf

    original = gguf.GGUFWriter.__init__

    def with_digests(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        self.add_string("forgegate.base_source_digest", source_digest)
        self.add_string("forgegate.adapter_digest", version_digest)

    gguf.GGUFWriter.__init__ = with_digests
    sys.argv = [LORA_SCRIPT, adapter, "--base", base, "--outfile", out, "--outtype", "f32"]
    runpy.run_path(str(Path(converter) / LORA_SCRIPT), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
