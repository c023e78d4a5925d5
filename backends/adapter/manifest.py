"""What is known of a stored version: its identity, and where it came from. Standard library and msgspec: the gateway reads it, too.

    version digest = sha256 over the digests of the canonical weights and configuration, of the base's source, of the chat template

Names are labels on it: `support@3f2a91c04b7d`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from backends.errors import BackendError

MANIFEST = "manifest.json"
FORMAT = 1
"""Of the canonical form: raise it when equal uploads must become other versions."""
NAME_DIGITS = 12


class VersionUnusable(BackendError):
    """A stored version is missing or damaged."""

    exit_code = 2


class BaseRef(msgspec.Struct, frozen=True):
    """Of the model that a version belongs to; `name` is a label."""

    name: str
    source_digest: str
    template_digest: str
    architecture: str


class Uploaded(msgspec.Struct, frozen=True):
    """The adapter as it came; `files` and `sizes` by name, digests as `sha256:<hex>`."""

    rank: int
    alpha: float
    use_rslora: bool
    has_patterns: bool
    """Ranks or alphas that differ between modules."""
    dtypes: list[str]
    files: dict[str, str]
    sizes: dict[str, int]
    dropped: list[str]
    """Names of files that were left out."""
    peft_version: str
    base_model: str
    """What its configuration calls the base model."""
    metadata: dict[str, str]
    """Of its safetensors file: some trainers sign there."""


class Manifest(msgspec.Struct, frozen=True):
    """`rank` is the canonical one, of every module; `targets` last names of modules, `layers` numbers; `size_bytes` of the weights."""

    format: int
    digest: str
    """64 hex digits."""
    base: BaseRef
    rank: int
    targets: list[str]
    layers: list[int]
    num_modules: int
    num_parameters: int
    size_bytes: int
    files: dict[str, str]
    """`sha256:<hex>` of the canonical files, by name."""
    uploaded: Uploaded
    warnings: list[dict[str, str]]
    attachments: dict[str, str] = {}
    """`sha256:<hex>` of what was derived later, by file name."""

    @property
    def short(self) -> str:
        return self.digest[:NAME_DIGITS]

    def attached(self, name: str, digest: str) -> Manifest:
        return msgspec.structs.replace(self, attachments={**self.attachments, name: digest})

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def version_digest(files: dict[str, str], source_digest: str, template_digest: str) -> str:
    """64 hex digits; `files` are the canonical ones with their digests."""
    named = [f"forgegate adapter {FORMAT}", *(f"{name} {digest}" for name, digest in sorted(files.items()))]
    text = "\n".join([*named, f"base {source_digest}", f"template {template_digest}"])
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(version: Path) -> Manifest:
    """Of a version's folder. Raises VersionUnusable."""
    path = version / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as exc:
        raise VersionUnusable(f"{path}: {exc.strerror or exc}") from exc
    except msgspec.MsgspecError as exc:
        raise VersionUnusable(f"{path}: not a manifest: {exc}") from exc


def encode(manifest: Manifest) -> bytes:
    """As it is stored."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def file_digest(path: Path) -> str:
    """`sha256:<hex>`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def stamp(version: Path) -> tuple[object, ...]:
    """Changes when the version's own files do, as far as that shows without reading them. Raises OSError, VersionUnusable."""
    marks: list[object] = []
    for name in (MANIFEST, *sorted(read_manifest(version).files)):
        found = (version / name).stat()
        marks.append((name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    return tuple(marks)


def verify(version: Path) -> Manifest:
    """Reads the canonical files again. Raises VersionUnusable where they are not those that the digest names."""
    manifest = read_manifest(version)
    try:
        found = {name: file_digest(version / name) for name in manifest.files}
    except OSError as exc:
        raise VersionUnusable(f"{exc.filename}: {exc.strerror or exc}") from exc
    digest = version_digest(found, manifest.base.source_digest, manifest.base.template_digest)
    if not digest == manifest.digest == version.name:
        raise VersionUnusable(f"{version}: its files are not those that were stored: a damaged disk?")
    return manifest
