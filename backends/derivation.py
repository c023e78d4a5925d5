"""A model folder that is another form of other weights (AWQ ...): the record beside them that says of which. Standard library only.

    forgegate.json   {"form": "awq", "source_digest": "sha256:...", "content_digest": "sha256:..."}

It holds for the weights that it was written for: with others in their place it says nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.atomicfile import atomic_path

RECORD = "forgegate.json"


@dataclass(frozen=True, slots=True)
class Derivation:
    form: str
    source_digest: str
    """`sha256:<hex>` of the weights that it was made from."""
    content_digest: str
    """`sha256:<hex>` of the weights and the tokenizer that lie here."""


def write_record(folder: Path, derivation: Derivation) -> None:
    """Raises OSError."""
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(asdict(derivation), indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Derivation | None:
    """None where there is none that can be read."""
    try:
        return Derivation(**json.loads((folder / RECORD).read_bytes()))
    except (OSError, TypeError, ValueError):
        return None


def source_of(folder: Path, content_digest: str) -> str:
    """The digest of the weights that a folder with this content was made from; its own where it was made from none."""
    record = read_record(folder)
    return record.source_digest if record is not None and record.content_digest == content_digest else content_digest
