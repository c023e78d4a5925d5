"""Embeddings through the whole product: an encoder that needs no option, and the demo model told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import Served

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.engine]

CONFIG = """
server: {{port: 0, admin: {{port: 0}}}}
models:
  - name: words
    pools: [{{engine: llamacpp, model: {gguf}}}]
  - name: states
    pools: [{{engine: llamacpp, model: demo, options: {{pooling: last}}}}]
"""


def test_each_model_says_and_does_what_it_was_started_for(tmp_path: Path, forgegate_home: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import openai

    from tests.backends.llamacpp.tiny_bert import WIDTH, random_weights, write_gguf

    encoder = write_gguf(tmp_path / "encoder.gguf", random_weights(), gguf.PoolingType.MEAN)
    config = tmp_path / "forgegate.yaml"
    config.write_text(CONFIG.format(gguf=encoder), encoding="utf-8")
    with Served(forgegate_home, "--config", str(config)) as served:
        served.wait_ready()
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            listed = {model.id: model.model_dump()["capabilities"] for model in client.models.list()}
            assert listed == {name: ["embeddings", "tokenize", "literal_special_text"] for name in ("words", "states")}
            for name, width in (("words", WIDTH), ("states", 256)):
                answer = client.embeddings.create(model=name, input=["the cat sat", "a kv cache"])
                assert [len(item.embedding) for item in answer.data] == [width, width]
                assert answer.model == name
            with pytest.raises(openai.BadRequestError, match=r"input\[1\]: an empty text"):
                client.embeddings.create(model="words", input=["a", ""])
            with pytest.raises(openai.NotFoundError, match="does not serve /v1/chat/completions"):
                client.chat.completions.create(model="words", messages=[{"role": "user", "content": "hi"}])
