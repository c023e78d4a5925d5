"""A package called vllm with the few names that a survey asks for, laid out as one version or the other; it counts its imports."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

PARSER = {"old": "entrypoints/openai/cli_args.py", "new": "entrypoints/launchers/cli_args.py"}
IMPORTS = "imports.log"


def write_tiny_vllm(folder: Path, layout: str = "new", version: str = "0.32.0", device: str = "cpu") -> tuple[str, ...]:
    """Write it into `folder`. Returns the command of an interpreter that finds it."""
    root = folder / "vllm"
    files = {
        "__init__.py": f"""
            import pathlib
            from vllm._version import __version__
            with open({str(folder / IMPORTS)!r}, "a") as log:
                log.write("x")
            print("INFO 11-30 00:34:25 [__init__.py:27] vLLM logs to standard output")
        """,
        "_version.py": f"__version__ = {version!r}",
        "platforms.py": f"class current_platform:\n    device_type = {device!r}",
        "utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
        PARSER[layout]: """
            import json

            def optional_type(kind):
                def _optional_type(text):
                    return None if text == "None" else kind(text)
                return _optional_type

            def make_arg_parser(parser):
                parser.add_argument("model_tag", nargs="?")
                parser.add_argument("--dtype", choices=["auto", "half"])
                parser.add_argument("--max-cpu-loras", type=optional_type(int))
                parser.add_argument("--hf-overrides", type=json.loads)
                parser.add_argument("--quantization", "-q")
                parser.add_argument("--enforce-eager", action="store_true")
                return parser
        """,
        "model_executor/layers/quantization.py": "QUANTIZATION_METHODS = ['fp8', 'awq']",
        "tool_parsers.py": """
            class ToolParserManager:
                @classmethod
                def list_registered(cls):
                    return ["hermes"]
        """,
        "config.py": """
            from dataclasses import dataclass

            @dataclass
            class SpeculativeConfig:
                method: str = ""
        """,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return ("env", f"PYTHONPATH={folder}", sys.executable)


def num_imports(folder: Path) -> int:
    log = folder / IMPORTS
    return len(log.read_text()) if log.exists() else 0
