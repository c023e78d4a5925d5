"""A reference that came with its adapter: taken where it is of just these weights, and marked as the publisher's word.

Whoever serves need not have the trainer's environment. What the reference says is held against the engine, so that it can never be the
engine's own word; that it says the truth, its publisher answers for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backends.adapter.golden import GoldenError, read_golden, to_bytes
from backends.adapter.manifest import Manifest, VersionUnusable, read_manifest, version_digest
from backends.adapter.upload import MANIFEST, REFERENCE

PUBLISHER = "publisher"
WORDS = "its reference came with the upload, attested by the publisher"


def adopt(upload: Path, manifest: Manifest) -> bytes | None:
    """The reference in an upload's folder as the version's own; None where none came. Raises GoldenError for one that is another's."""
    if not (upload / REFERENCE).is_file():
        return None
    golden = read_golden(upload / REFERENCE)
    if golden.base_digest != manifest.base.source_digest:
        raise GoldenError(
            f"it was made on a base of {_short(golden.base_digest)}, {manifest.base.name} has {_short(manifest.base.source_digest)}"
        )
    if golden.adapter_digest not in {manifest.digest, _elsewhere(upload, manifest)}:
        raise GoldenError(f"it was made for the version {golden.adapter_digest[:12]}, this is {manifest.short}")
    return to_bytes(replace(golden, adapter_digest=manifest.digest, attested_by=PUBLISHER))


def _elsewhere(upload: Path, manifest: Manifest) -> str:
    """What the version is called where the base has the chat template that the upload's own manifest tells: scores do not depend on it."""
    if not (upload / MANIFEST).is_file():
        return manifest.digest
    try:
        template = read_manifest(upload).base.template_digest
    except VersionUnusable as exc:
        raise GoldenError(f"the manifest beside it cannot be read: {exc}") from exc
    return version_digest(manifest.files, manifest.base.source_digest, template)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
