"""Folders that are other forms of other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backends.demo import DRAFT_DIR, TARGET_DIR
from backends.derivation import RECORD, Derivation, read_record, write_record
from backends.sourcedigests import compute_digest, source_digest


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    """The draft model's weights, said to be made from the target's."""
    folder = Path(shutil.copytree(DRAFT_DIR, tmp_path / "derived"))
    write_record(folder, Derivation("awq", source_digest(TARGET_DIR), compute_digest(folder)))
    return folder


def test_a_derived_folder_has_the_digest_of_its_source(derived: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert source_digest(derived) == source_digest(TARGET_DIR)
    assert source_digest(derived, cache) == source_digest(derived, cache) == source_digest(TARGET_DIR)
    assert compute_digest(derived) == source_digest(DRAFT_DIR)


def test_the_record_holds_for_its_own_weights_only(derived: Path, tmp_path: Path) -> None:
    shutil.copyfile(TARGET_DIR / "model.safetensors", derived / "model.safetensors")
    assert source_digest(derived, tmp_path / "cache") == source_digest(derived) == compute_digest(derived)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"form": "awq"}'])
def test_a_damaged_record_says_nothing(derived: Path, content: str) -> None:
    (derived / RECORD).write_text(content)
    assert read_record(derived) is None
    assert source_digest(derived) == source_digest(DRAFT_DIR)
