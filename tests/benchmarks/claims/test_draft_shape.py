"""A draft's shape beside a model's: its sizes are smaller, its vocabulary is the same."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.claims import draft_shape
from benchmarks.claims.models import token_bytes
from tests.benchmarks.claims.settings import model_folder


def test_a_draft_has_the_models_vocabulary_and_fewer_layers(tmp_path: Path) -> None:
    model, out = model_folder(tmp_path / "8b", 32, 10), tmp_path / "1b"
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors.index.json").write_text("{}")
    assert draft_shape.main([str(model), str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["num_hidden_layers"]) == (128256, 16)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "tokenizer.json"]
    assert token_bytes(out) == token_bytes(model) // 4
