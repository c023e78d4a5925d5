"""The GGUF form of an adapter of any architecture that llama.cpp's own converter knows. Runs as a child.

python -m backends.llamacpp.lora_convert --adapter VERSION --base MODEL_FOLDER --out FILE --tools DIR --python PYTHON
    --source-digest D --version-digest D

The last line of standard output says why it did not succeed. Exit codes: 0 done, 2 the converter refuses this adapter,
3 the environment cannot do it (no torch, no converter, time-out).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from backends.errors import PrepareFailed
from backends.llamacpp.toolkit import LORA_SCRIPT, ensure_converter
from backends.pythons import child_env, lacking

TIMEOUT_S = 1200.0
_NEEDS = ("torch", "transformers", "safetensors", "gguf")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_ENVIRONMENT = ("ModuleNotFoundError", "ImportError", "No space left on device", "MemoryError")


class AdapterNotConvertible(Exception):
    """llama.cpp's converter refuses it."""


def convert(adapter: Path, base: Path, out: Path, tools: Path, python: str, digests: tuple[str, str]) -> None:
    """`digests`: the base's source, the version. Raises PrepareFailed, AdapterNotConvertible."""
    if problem := lacking(python, _NEEDS):
        raise PrepareFailed(
            f"llama.cpp's {LORA_SCRIPT} needs torch and transformers, and {python} {problem}: `forgegate install trainer`"
        )
    converter = ensure_converter(tools, lambda text: print(text, file=sys.stderr, flush=True))
    # -P: the working folder does not get before the installed packages.
    argv = [python, "-P", "-m", "backends.llamacpp.lora_to_gguf", str(converter), str(adapter), str(base), str(out)]
    try:
        done = subprocess.run(
            [*argv, *digests], env={**child_env(), **_OFFLINE}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise PrepareFailed(f"llama.cpp's {LORA_SCRIPT} took longer than {TIMEOUT_S:g} s and was ended") from exc
    if done.returncode == 0 and out.is_file():
        return
    cause = _cause(done.stdout, done.returncode)
    if done.returncode < 0 or any(word in cause for word in _ENVIRONMENT):
        raise PrepareFailed(f"llama.cpp's {LORA_SCRIPT} failed: {cause}")
    raise AdapterNotConvertible(f"llama.cpp's {LORA_SCRIPT} refuses it: {cause}")


def _cause(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"(ERROR[ :]|[A-Za-z_.]*(Error|Exception)\b)", line)]
    return (told or lines or [f"exit code {code}"])[-1][:300]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Convert a LoRA adapter to GGUF with llama.cpp's own converter.")
    for name in ("adapter", "base", "out", "tools"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("python", "source-digest", "version-digest"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args(argv)
    digests = (args.source_digest, args.version_digest)
    try:
        convert(args.adapter, args.base, args.out, args.tools, args.python, digests)
    except AdapterNotConvertible as exc:
        print(exc)
        return 2
    except PrepareFailed as exc:
        print(exc)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
