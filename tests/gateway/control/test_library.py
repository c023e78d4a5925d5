from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backends.adapter.golden import GoldenError
from backends.adapter.manifest import Manifest
from gateway.control.desired import Version
from gateway.control.library import GOLDEN, Library
from tests.gateway.control.adapter_rig import BASE, store_version


def version_of(manifest: Manifest, base_digest: str = BASE) -> Version:
    return Version(f"support@{manifest.short}", manifest.digest, "demo", base_digest, 8, 1, "ann", 0.0)


async def test_a_reference_is_that_of_its_version_and_base(tmp_path: Path) -> None:
    library = Library(tmp_path / "adapters")
    ours, other = store_version(tmp_path / "adapters", "a"), store_version(tmp_path / "adapters", "b")
    golden = await library.golden(version_of(ours))
    assert golden is not None
    assert golden.adapter_digest == ours.digest
    library.forget(ours.digest)
    with pytest.raises(GoldenError, match="another version or other weights; publish it again"):
        await library.golden(version_of(ours, "sha256:11"))
    foreign = shutil.copy(library.store.version(other.digest) / GOLDEN, tmp_path / "foreign")
    library.store.attach(ours.digest, GOLDEN, Path(foreign))
    with pytest.raises(GoldenError, match="another version"):
        await library.golden(version_of(ours))
