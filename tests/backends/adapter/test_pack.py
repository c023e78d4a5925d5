from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from backends.adapter.pack import NotAnAdapter, pack

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / WEIGHTS).write_bytes(b"w" * 700_001)
    return tmp_path


def test_the_archive_is_what_tar_reads_and_as_long_as_it_says(folder: Path) -> None:
    (folder / "README.md").write_bytes(b"")
    packed = pack(folder)
    pieces = list(packed.chunks())
    raw = b"".join(pieces)
    assert len(raw) == packed.num_bytes
    assert max(map(len, pieces)) <= 256 * 1024
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert content == {CONFIG: b"{}", WEIGHTS: b"w" * 700_001, "README.md": b""}


def test_what_nobody_needs_there_stays_here(folder: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "adapter.gguf"):
        (folder / name).write_bytes(b"x")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"x")
    (folder / "more.safetensors").write_bytes(b"x")  # might belong to it: the gateway has to see it
    assert [path.name for path, _ in pack(folder).files] == [CONFIG, WEIGHTS, "more.safetensors"]


def test_a_file_that_shrinks_while_it_is_sent_is_noticed(folder: Path) -> None:
    chunks = pack(folder).chunks()
    next(chunks)
    (folder / WEIGHTS).write_bytes(b"short")
    with pytest.raises(NotAnAdapter, match="became shorter"):
        list(chunks)


def test_what_is_no_adapter_is_said_with_what_to_do(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(NotAnAdapter) as caught:
            pack(path)
        assert caught.value.exit_code == 2
        return str(caught.value)

    assert refusal(tmp_path / "nothing").endswith("nothing: no such folder")
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert "is a file: name the folder" in refusal(file)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no adapter_config.json and no adapter_model.safetensors; name the folder" in refusal(empty)
    (empty / "config.json").write_bytes(b"{}")
    assert "it is a whole model, which `forgegate serve --model" in refusal(empty)
    outer = tmp_path / "run"
    (outer / "checkpoint-9").mkdir(parents=True)
    (outer / "checkpoint-9" / CONFIG).write_bytes(b"{}")
    assert f"there is one in {outer / 'checkpoint-9'}" in refusal(outer)
    (outer / CONFIG).write_bytes(b"{}")
    (outer / "adapter_model.bin").write_bytes(b"pickle")
    assert "its weights are a pickle" in refusal(outer)
