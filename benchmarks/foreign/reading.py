"""Which tool wrote a file, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from benchmarks.foreign import guidellm, ours, vllm
from benchmarks.foreign.measured import ForeignError, Measured

Document = Mapping[str, Any]
_KNOWN = "`forgegate bench run`, `vllm bench serve --save-result` or GuideLLM"


def documents_of(path: Path) -> list[Document]:
    """One JSON document, or one a line. Raises ForeignError."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ForeignError(f"cannot read {path}: {exc.strerror or exc}") from exc
    try:
        found = [orjson.loads(content)]
    except orjson.JSONDecodeError as exc:
        try:
            found = [orjson.loads(line) for line in content.splitlines() if line.strip()]
        except orjson.JSONDecodeError:
            raise ForeignError(f"{path} is not JSON: {exc}") from exc
    if not found or not all(isinstance(document, dict) for document in found):
        raise ForeignError(f"{path} is no result of {_KNOWN}")
    return found


def measured_of(path: Path, documents: list[Document]) -> Measured:
    """What `documents_of` has read from there. Raises ForeignError."""
    first = documents[0]
    try:
        if all(map(vllm.is_vllms, documents)):
            return vllm.read(documents)
        if len(documents) == 1 and guidellm.is_guidellms(first):
            return guidellm.read(first)
        if len(documents) == 1 and ours.is_ours(first):
            return ours.read(first)
    except ForeignError as exc:
        raise ForeignError(f"{path} is {exc}") from exc
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise ForeignError(f"{path} is not as its tool writes it: {exc!r}") from exc
    raise ForeignError(f"{path} is no result of {_KNOWN}")
