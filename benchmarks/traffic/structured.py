"""Body fields of requests for JSON by a schema and for tool calls, from files."""

from pathlib import Path
from typing import Any

import orjson

from benchmarks.traffic.errors import WorkloadError


def schema_fields(path: Path) -> dict[str, Any]:
    """`response_format` for the JSON schema of a file; raises WorkloadError."""
    schema = _read(path)
    if not isinstance(schema, dict) or not schema:
        raise WorkloadError(f"{path}: a JSON schema is an object with at least one keyword")
    name = str(schema.get("title") or path.stem)
    # OpenAI allows letters, digits, _ and - in the name, 64 at most.
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:64]
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}


def tool_fields(path: Path, choice: str = "auto") -> dict[str, Any]:
    """`tools` and `tool_choice` from a file with the list of tools as the API takes it; raises WorkloadError."""
    tools = _read(path)
    if not isinstance(tools, list) or not tools:
        raise WorkloadError(f"{path}: tools are a list of objects")
    for number, tool in enumerate(tools, start=1):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise WorkloadError(f'{path}: tool {number} is not {{"type": "function", "function": {{"name": ...}}}}')
    return {"tools": tools, "tool_choice": choice}


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except OSError as exc:
        raise WorkloadError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except orjson.JSONDecodeError as exc:
        raise WorkloadError(f"{path}: not JSON: {exc}") from exc
