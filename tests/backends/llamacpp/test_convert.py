import ctypes
import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from backends.artifacts import source_digest
from backends.demo.random_weights import write_random_model
from backends.demo.shapes import SHAPES, Shape
from backends.llamacpp.convert import ConvertError, convert, ensure_gguf

llama_cpp = pytest.importorskip("llama_cpp")

# Several query heads to a kv head and two kv heads, so that a wrong permutation shows.
SHAPE = Shape(hidden=256, intermediate=256, num_layers=2, num_heads=4, num_kv_heads=2)
TOKENS = [300, 300, 1000, 17, 2222, 4095, 42, 600, 601, 602, 1000, 1001, 3000, 7, 9, 259]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "weights" / "random"
    write_random_model(out, SHAPE, seed=3)
    return out


@pytest.fixture
def broken(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "broken"))


def llama_logits(path: Path, tokens: list[int]) -> np.ndarray:
    from backends.llamacpp.binding import library as binding

    binding.initialise()  # its log callback lives as long as the process; one of this function's own would not
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_threads = 256, 64, 1
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    size = len(tokens) * SHAPE.vocab
    flat = ctypes.cast(llama_cpp.llama_get_logits(context), ctypes.POINTER(ctypes.c_float * size)).contents
    logits = np.array(flat, dtype=np.float32).reshape(len(tokens), SHAPE.vocab)
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


@pytest.mark.parametrize(("dtype", "tolerance"), [("f16", 2e-5), ("f32", 2e-5), ("bf16", 2e-4)])
def test_logits_equal_those_of_transformers(model_dir: Path, tmp_path: Path, dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    convert(model_dir, tmp_path / "m.gguf", dtype)
    actual = llama_logits(tmp_path / "m.gguf", TOKENS)
    cosine = (expected * actual).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(actual, axis=-1)
    assert cosine.min() > 1 - tolerance
    assert (expected.argmax(-1) == actual.argmax(-1)).all()


def test_carries_digest_template_and_token_roles(model_dir: Path, tmp_path: Path) -> None:
    import gguf

    path = ensure_gguf(model_dir, tmp_path)
    reader = gguf.GGUFReader(path)
    value = {name: field.contents() for name, field in reader.fields.items()}
    assert value["forgegate.source_digest"] == source_digest(model_dir)
    assert (
        value["tokenizer.chat_template"]
        == json.loads((model_dir / "tokenizer_config.json").read_text())["chat_template"]
    )
    assert value["tokenizer.ggml.eos_token_id"] == value["tokenizer.ggml.eot_token_id"] == 260
    assert value["tokenizer.ggml.add_bos_token"] is False
    assert value["tokenizer.ggml.add_space_prefix"] is False
    assert {t.tensor_type.name for t in reader.tensors} == {"F16", "F32"}
    assert path.name.endswith(f"-random-{source_digest(model_dir)[7:19]}-f16.gguf")


def test_is_derived_once_and_again_when_the_template_changes(broken: Path, tmp_path: Path) -> None:
    first = ensure_gguf(broken, tmp_path / "cache")
    stamp = first.stat().st_ino
    assert ensure_gguf(broken, tmp_path / "cache").stat().st_ino == stamp
    settings = json.loads((broken / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "other"}))
    again = ensure_gguf(broken, tmp_path / "cache")
    assert again == first
    assert b"other" in again.read_bytes()


def test_processes_that_race_all_get_a_whole_file(model_dir: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.starmap(ensure_gguf, [(model_dir, tmp_path)] * 6)
    assert len(set(paths)) == 1
    convert(model_dir, tmp_path / "alone" / paths[0].name)
    assert paths[0].read_bytes() == (tmp_path / "alone" / paths[0].name).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_truncated_weights_are_one_clear_error(broken: Path, tmp_path: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConvertError, match="truncated"):
        convert(broken, tmp_path / "m.gguf")
    assert list(tmp_path.glob("*.gguf")) == []


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x10" + b"\0" * 7 + b"not json at all!", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_corrupt_weights_are_one_clear_error(broken: Path, tmp_path: Path, content: bytes) -> None:
    (broken / "model.safetensors").write_bytes(content)
    with pytest.raises(ConvertError, match=r"model\.safetensors"):
        convert(broken, tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_missing_file_is_named(broken: Path, tmp_path: Path, name: str) -> None:
    (broken / name).unlink()
    with pytest.raises(ConvertError, match=name.split(".")[0] if name != "model.safetensors" else "safetensors"):
        convert(broken, tmp_path / "m.gguf")


def test_missing_tensor_and_foreign_architecture_are_refused(broken: Path, tmp_path: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ConvertError, match=r"tensors missing.*layers\.2"):
        convert(broken, tmp_path / "m.gguf")
    (broken / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(ConvertError, match="GPT2LMHeadModel"):
        convert(broken, tmp_path / "m.gguf")


def test_a_disk_that_refuses_is_one_clear_error(model_dir: Path) -> None:
    with pytest.raises(ConvertError, match="cannot write"):
        convert(model_dir, Path("/proc/forgegate/m.gguf"))


def test_a_full_disk_leaves_nothing(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    def fail(self: object, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(ConvertError, match="No space left on device"):
        convert(model_dir, tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_shapes_of_the_family_stay_under_their_caps() -> None:
    assert SHAPES["target"].num_parameters() < 8_380_000
    assert SHAPES["draft"].num_parameters() < 1_000_000
