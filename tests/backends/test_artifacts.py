import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from backends import artifacts, sourcedigests
from backends.artifacts import ArtifactError, Tensor, bf16_tensor, read_tensors, source_digest, write_tensors
from backends.demo.random_weights import write_random_model
from backends.demo.shapes import SHAPES


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    write_random_model(tmp_path / "model", SHAPES["tiny"], seed=1)
    return tmp_path / "model"


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.1415927, 1e30, -1e-30], dtype=np.float32)
    rounded = bf16_tensor(values).to_f32()
    assert rounded[:5].tolist() == [0.0, -0.0, 1.0, 1.0, 1.015625]
    assert np.abs(rounded - values).max() / 1e30 < 0.004
    torch = pytest.importorskip("torch")
    many = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    assert np.array_equal(bf16_tensor(many).to_f32(), torch.from_numpy(many).bfloat16().float().numpy())


def test_the_reference_implementation_reads_what_we_write_and_the_other_way_round(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, dtype=np.float16)}
    safetensors.save_file(arrays, tmp_path / "theirs.safetensors")
    tensors = read_tensors(tmp_path / "theirs.safetensors")
    assert np.array_equal(tensors["a"].to_f32(), arrays["a"])
    assert np.array_equal(tensors["b"].to_f32(), np.ones(5))
    write_tensors(tmp_path / "ours.safetensors", tensors)
    again = safetensors.load_file(tmp_path / "ours.safetensors")
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_digest_names_content_not_layout(model_dir: Path, tmp_path: Path) -> None:
    digest = source_digest(model_dir)
    assert digest.startswith("sha256:")
    assert len(digest) == 71
    split = Path(shutil.copytree(model_dir, tmp_path / "split"))
    tensors = sorted(read_tensors(model_dir / "model.safetensors").items())
    write_tensors(split / "model-1.safetensors", dict(tensors[:3]), {"made": "elsewhere"})
    write_tensors(split / "model-2.safetensors", dict(tensors[3:]))
    (split / "model.safetensors").unlink()
    tokenizer = json.loads((split / "tokenizer.json").read_text())
    (split / "tokenizer.json").write_text(json.dumps(tokenizer, indent=3))
    assert source_digest(split) == digest


@pytest.mark.parametrize("change", ["bytes", "name", "shape", "dtype", "tokenizer"])
def test_digest_changes_with_the_content(model_dir: Path, change: str) -> None:
    digest = source_digest(model_dir)
    path = model_dir / "model.safetensors"
    tensors = {name: Tensor(t.dtype, t.shape, np.array(t.data)) for name, t in read_tensors(path).items()}
    norm = tensors["model.norm.weight"]
    if change == "bytes":
        norm.data[0] ^= 1
    elif change == "name":
        tensors["model.norm.weight2"] = tensors.pop("model.norm.weight")
    elif change == "shape":
        tensors["model.norm.weight"] = Tensor(norm.dtype, (1, *norm.shape), norm.data)
    elif change == "dtype":
        tensors["model.norm.weight"] = Tensor("F16", norm.shape, norm.data)
    else:
        tokenizer = json.loads((model_dir / "tokenizer.json").read_text())
        tokenizer["model"]["merges"].pop()
        (model_dir / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_tensors(path, tensors)
    assert source_digest(model_dir) != digest


def test_large_files_are_hashed_once(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    digest = source_digest(model_dir, cache)
    with monkeypatch.context() as patch:
        patch.setattr(sourcedigests, "compute_digest", lambda _: pytest.fail("hashed again"))
        assert source_digest(model_dir, cache) == digest
    write_random_model(model_dir, SHAPES["tiny"], seed=2)
    assert source_digest(model_dir, cache) != digest


@pytest.mark.parametrize("content", [b"", b"garbage", b"[1]", b"\xff\xfe"])
def test_a_damaged_cache_is_no_cache(model_dir: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source-digests.json").write_bytes(content)
    assert source_digest(model_dir, tmp_path) == source_digest(model_dir)


def test_errors_name_the_file(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no \*\.safetensors"):
        source_digest(tmp_path)
    shutil.copyfile(model_dir / "model.safetensors", model_dir / "more.safetensors")
    with pytest.raises(ArtifactError, match="stored twice"):
        source_digest(model_dir)
    (model_dir / "more.safetensors").write_bytes(b"\x01")
    with pytest.raises(ArtifactError, match=r"more\.safetensors: not a whole safetensors file"):
        source_digest(model_dir)
    with pytest.raises(ArtifactError, match="cannot read a tensor of dtype I64"):
        Tensor("I64", (1,), np.zeros(8, np.uint8)).to_f32()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ArtifactError, match="No space left"):
        _write_until_the_disk_is_full(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _write_until_the_disk_is_full(target: Path) -> None:
    with artifacts.atomic_writer(target) as out:
        out.write(b"new")
        raise OSError(28, "No space left on device")
