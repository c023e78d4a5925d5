"""What is kept of source digests; that they are used is in test_artifacts.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.errors import ModelUnusable
from backends.sourcedigests import CACHE, known_digests, stamp_of


def test_a_stamp_is_that_of_these_files(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a")
    with pytest.raises(ModelUnusable, match="no tokenizer"):
        stamp_of(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    stamp = stamp_of(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert stamp_of(tmp_path) == stamp
    weights.write_bytes(b"ab")
    assert stamp_of(tmp_path) != stamp


def test_a_damaged_cache_is_empty(tmp_path: Path) -> None:
    assert known_digests(tmp_path) == {}
    for content, known in ((b"{", {}), (b"[]", {}), (b'{"a": "sha256:b"}', {"a": "sha256:b"})):
        (tmp_path / CACHE).write_bytes(content)
        assert known_digests(tmp_path) == known
