"""What this vLLM's own argument parser takes, as one line of JSON. Runs in vLLM's interpreter, as `python -c`.

Two versions' ways to the parser are known: 0.26 has it under `entrypoints.openai`, 0.32 under `entrypoints.launchers`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

MARK = "forgegate-survey "
"""Begins the line: vLLM logs to the same stream."""
PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
VALUES = {
    "--quantization": ("vllm.model_executor.layers.quantization", "QUANTIZATION_METHODS"),
    "--attention-backend": ("vllm.v1.attention.backends.registry", "AttentionBackendEnum.__members__"),
    "--tool-call-parser": ("vllm.tool_parsers", "ToolParserManager.list_registered"),
    "--reasoning-parser": ("vllm.reasoning", "ReasoningParserManager.list_registered"),
    "--load-format": ("vllm.model_executor.model_loader", "_LOAD_FORMAT_TO_MODEL_LOADER"),
}
"""Where the values of flags are that take any text for the parser."""
KEYS = {
    "--speculative-config": ("vllm.config", "SpeculativeConfig"),
    "--compilation-config": ("vllm.config", "CompilationConfig"),
}
"""Where the keys of JSON flags are."""
EXTRAS = ("arctic_inference",)
"""Modules that some methods need."""


def main() -> None:
    found = {
        "version": str(import_module("vllm").__version__),
        "device": str(import_module("vllm.platforms").current_platform.device_type),
        "flags": [described(action) for action in parser()._actions if action.option_strings],
        "values": {flag: sorted(map(str, values)) for flag, place in VALUES.items() if (values := listed(*place))},
        "keys": {flag: names for flag, place in KEYS.items() if (names := fields(*place))},
        "modules": [name for name in EXTRAS if find_spec(name)],
    }
    sys.stdout.write(f"\n{MARK}{json.dumps(found)}\n")


def parser() -> Any:
    kind = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    for place in PARSERS:
        try:
            return import_module(place).make_arg_parser(kind())
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"none of {', '.join(PARSERS)}")


def described(action: Any) -> dict[str, Any]:
    """One flag: its names, how many words follow it, and which."""
    choices = [str(choice) for choice in action.choices] if action.choices else None
    entry = {"names": action.option_strings, "nargs": action.nargs, "choices": choices, "type": type_name(action.type)}
    return {key: value for key, value in entry.items() if value not in (None, "")}


def type_name(kind: Any) -> str:
    """`int`, `float` or `json`; empty: any text. vLLM wraps the types of what may be None."""
    inner = [cell.cell_contents for cell in getattr(kind, "__closure__", None) or ()]
    for candidate in (kind, *inner):
        name = getattr(candidate, "__name__", "")
        if name in ("int", "float"):
            return str(name)
        if name in ("loads", "parse_dataclass"):
            return "json"
    return ""


def listed(module: str, path: str) -> list[Any]:
    """What is there under a dotted name, called if it can be; nothing where this version has no such name."""
    try:
        found = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return []
    return list(found() if callable(found) else found)


def fields(module: str, name: str) -> list[str]:
    try:
        return [field.name for field in dataclasses.fields(getattr(import_module(module), name))]
    except (ImportError, AttributeError, TypeError):
        return []


if __name__ == "__main__":
    main()
