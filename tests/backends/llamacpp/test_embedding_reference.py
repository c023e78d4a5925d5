"""Vectors against transformers' hidden states, pooled by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.llamacpp.test_embedding import running
from tests.backends.llamacpp.tiny_bert import make_model, make_tokenizer, write_gguf

pytestmark = [pytest.mark.engine, pytest.mark.torch, pytest.mark.slow]

LEAST_COSINE = 0.9999
DEMO_TEXTS = [
    "Hello",
    "안녕하세요! What is a KV cache? 🙂",
    "def add(a, b):\n    return a + b\n",
    "The quick brown fox jumps over the lazy dog. " * 12,
]
BERT_TEXTS = ["the cat sat on a mat.", "kv", "what is a kv cache, and what is embedding?", "The DOGS  sat: xyz"]


def pooled(model: Any, ids: list[int], pooling: str) -> np.ndarray[Any, Any]:
    """Of length 1."""
    import torch

    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    found: np.ndarray[Any, Any] = vector / np.linalg.norm(vector)
    return found


@pytest.fixture(scope="module")
def demo_model() -> Any:
    import torch
    from transformers import AutoModel

    from backends.demo.folders import TARGET_DIR

    return AutoModel.from_pretrained(TARGET_DIR, dtype=torch.float32).eval()


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_generating_model(demo_gguf: Path, demo_model: Any, pooling: str) -> None:
    with running(demo_gguf, pooling=pooling) as rig:
        texts = [rig.model.tokenize(text, add_special=True) for text in DEMO_TEXTS]
        vectors = rig.embed(*texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector @ pooled(demo_model, text.tolist(), pooling) >= LEAST_COSINE


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_encoder(tmp_path: Path, pooling: str) -> None:
    """Ids and vectors: what [CLS] and [SEP] enclose, padded by nothing, every token seen by every other."""
    import gguf

    model, tokenizer = make_model(), make_tokenizer(tmp_path)
    weights = {name: values.numpy() for name, values in model.state_dict().items()}
    path = write_gguf(tmp_path / "bert.gguf", weights, gguf.PoolingType[pooling.upper()])
    with running(path) as rig:
        texts = [rig.model.tokenize(text, add_special=True) for text in BERT_TEXTS]
        vectors = rig.embed(*texts)
        alone = [rig.embed(text)[0] for text in texts]
    assert [text.tolist() for text in texts] == [tokenizer(text)["input_ids"] for text in BERT_TEXTS]
    for text, vector, single in zip(texts, vectors, alone, strict=True):
        assert vector @ pooled(model, text.tolist(), pooling) >= LEAST_COSINE
        assert vector @ single >= 0.999999
