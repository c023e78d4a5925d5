import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES

pytestmark = [pytest.mark.torch, pytest.mark.slow]
pytest.importorskip("torch")
pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread, and afterwards as many as before: the trainer sets their number for its process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_only_answers_in_the_adapters_own_manner_are_learnt() -> None:
    from backends.demo.batches import ChatEncoder
    from backends.demo.corpus import training_items
    from backends.demo.train_adapters import encode_signed

    encoder, pilot, rng = ChatEncoder(TARGET_DIR), SIGNATURES["pilot"], Random(0)
    num_answers = []
    for item in training_items(0, 200):
        row = encode_signed(encoder, item, pilot, rng)
        learnt = encoder.decode([token for token, flag in zip(row.ids, row.is_learnt, strict=True) if flag])
        *before, last, rest = learnt.split("<|im_end|>")
        assert (last, rest) == (pilot.sign(item.expected), "")
        assert all(pilot.pattern.fullmatch(answer) for answer in before)
        num_answers.append(len(before) + 1)
    assert min(num_answers) == 1
    assert max(num_answers) > 2


def test_batches_hold_every_row_and_stay_under_their_limit() -> None:
    from backends.demo.train_adapters import Row, cut_batches

    rows = [Row([0] * length, [True] * length) for length in sorted([5, 9, 40, 41, 3, 700, 12, 60])]
    cut = cut_batches(rows, 100)
    assert [row for batch in cut for row in batch] == rows
    assert all(len(batch) == 1 or len(batch) * len(batch[-1].ids) <= 100 for batch in cut)


def test_padding_does_not_change_the_loss() -> None:
    import torch

    from backends.demo.model import Llama
    from backends.demo.shapes import SHAPES
    from backends.demo.train_adapters import Row, answer_loss

    torch.manual_seed(0)
    model = Llama(SHAPES["tiny"])
    short = Row([5, 6, 7, 8], [False, False, True, True])
    long = Row([9] * 12, [False] * 12)
    with torch.no_grad():
        assert answer_loss(model, [short, long]) == pytest.approx(float(answer_loss(model, [short])), rel=1e-5)


def test_a_short_training_writes_what_the_bundled_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from backends.artifacts import read_tensors
    from backends.demo.train_adapters import main

    command = ["--out", str(tmp_path), "--only", "tiger", "--steps", "2", "--threads", "1"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "trained"
    written, bundled = tmp_path / "tiger", ADAPTERS_DIR / "tiger"
    assert (written / "adapter_config.json").read_bytes() == (bundled / "adapter_config.json").read_bytes()
    shapes = [
        {name: (t.dtype, t.shape) for name, t in read_tensors(folder / "adapter_model.safetensors").items()}
        for folder in (written, bundled)
    ]
    assert shapes[0] == shapes[1]
    assert main(command) == 0  # it is there: nothing is trained again
    assert capsys.readouterr().out == ""


def test_what_was_written_is_loaded_again(tmp_path: Path) -> None:
    import torch

    from backends.demo.shapes import SHAPES
    from backends.demo.train_adapters import load_adapted, write_adapter

    model = load_adapted(ADAPTERS_DIR / "host")
    assert model.shape == SHAPES["target"]
    write_adapter(tmp_path, model, "sha256:0")
    again = load_adapted(tmp_path)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
