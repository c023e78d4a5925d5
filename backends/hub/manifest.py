"""What a pulled model is: where from, which files, with which digests. JSON on disk, written whole."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from backends.hub.gguf import quant_of, stem_of
from backends.hub.listing import RemoteFile, is_safe
from backends.hub.partial import storing, sync_folder

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    repo: str
    """`ORG/NAME`, as the user named it."""
    label: str
    revision: str
    """As asked for; empty: the main branch."""
    commit: str
    """What that was when the model was pulled."""
    endpoint: str
    """The hub that it came from."""
    entry: str
    """What an engine is given, below the commit's folder: the (first) GGUF file, or a folder."""
    is_gguf: bool
    """Which of these `entry` is; a folder may be called `NAME.gguf` too."""
    files: tuple[RemoteFile, ...]
    pulled_at: str
    """UTC, ISO 8601."""

    @property
    def name(self) -> str:
        return f"{self.repo}:{self.label}{'@' + self.revision if self.revision else ''}"

    @property
    def num_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def tag(self) -> str:
        """The quantisation; empty where its name tells none."""
        return quant_of(self.entry) if self.is_gguf else ""

    @property
    def stem(self) -> str:
        return stem_of(self.entry) if self.is_gguf else self.label

    def place_of(self, file: RemoteFile) -> PurePosixPath:
        """Below the commit's folder."""
        return PurePosixPath(file.path) if self.is_gguf else PurePosixPath(self.entry, file.path)

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises StoreFailed."""
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            with temporary.open("w", encoding="utf-8") as out:
                json.dump({"format": FORMAT, **asdict(self)}, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
            sync_folder(path.parent)


def read_manifest(path: Path) -> Manifest | None:
    """None where there is none, or none that can be used."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content.pop("format") != FORMAT:
            return None
        manifest = Manifest(**{**content, "files": tuple(RemoteFile(**file) for file in content["files"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sound = all(is_safe(str(manifest.place_of(file))) for file in manifest.files) and is_safe(manifest.entry)
    return manifest if is_sound else None
