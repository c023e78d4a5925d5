"""Every id of the model has a text, and prompts are read as before."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import full_vocabulary

TOKENIZER = {
    "added_tokens": [{"id": 0, "content": "<pad>"}],
    "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
    "decoder": {"type": "ByteLevel"},
}


def test_only_ids_without_a_text_get_one() -> None:
    model = full_vocabulary.filled(TOKENIZER, 6)["model"]
    assert sorted(model["vocab"].values()) == [1, 2, 3, 4, 5]
    assert model["vocab"]["\u0120word5"] == 5
    assert model["merges"] == [["a", "b"]]
    assert TOKENIZER["model"]["vocab"] == {"a": 1, "b": 2, "ab": 3}  # type: ignore[index]


def test_a_folder_is_copied_without_its_weights(tmp_path: Path) -> None:
    shape, out = tmp_path / "shape", tmp_path / "out"
    shape.mkdir()
    (shape / "config.json").write_text('{"vocab_size": 5}')
    (shape / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (shape / "model.safetensors").write_bytes(b"weights")
    assert full_vocabulary.main([str(shape), str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "tokenizer.json"]
    assert len(json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]) == 4
