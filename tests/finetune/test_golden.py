"""References by transformers and PEFT: their scores, their faults, and the command that stores them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.adapter.golden import Golden, read_golden
from backends.adapter.probe import ProbeSet, Text, to_json
from backends.adapter.probe_demo import demo_probe
from backends.adapter.proof import judge
from backends.artifacts import source_digest
from backends.demo import TARGET_DIR
from backends.demo.signatures import ADAPTERS_DIR, SIGNATURES, signature_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]
DIGEST = "f" * 64
TEXTS = (Text((257, 300, 301, 400, 17, 2222)), Text((257, 42, 600, 601), 2), Text(tuple(range(300, 340)), 5))


@pytest.fixture(scope="module")
def reference() -> Any:
    from finetune.reference import Reference

    return Reference(TARGET_DIR, ADAPTERS_DIR / "host", "cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few texts of the demo's probe set, as a file."""
    probe = demo_probe(source_digest(TARGET_DIR), TARGET_DIR)
    path = tmp_path_factory.mktemp("probe") / "probe.json"
    path.write_text(to_json(ProbeSet(probe.texts[:12], probe.prompts[:1])))
    return path


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finetune.golden", "--base", TARGET_DIR, "--device", "cpu", *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


def test_scores_are_log_probabilities_whatever_shares_a_batch(reference: Any) -> None:
    together = reference.scores(TEXTS)
    assert len(together) == sum(text.num_scored for text in TEXTS) == 42
    assert max(together) < 0
    alone = [score for text in TEXTS for score in reference.scores([text])]
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_batch_is_as_small_as_its_logits_must_be(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference.scores(TEXTS)
    monkeypatch.setattr("finetune.reference.MAX_LOGITS_BYTES", 4 * 4096 * 8)
    assert [len(places) for places in reference._batches(TEXTS)] == [1, 1, 1]
    assert reference.scores(TEXTS) == pytest.approx(whole, abs=1e-4)


def test_scores_equal_those_of_the_demo_s_own_model(reference: Any) -> None:
    import torch

    from backends.demo.train_adapters import load_adapted

    model = load_adapted(ADAPTERS_DIR / "host")
    ids = torch.tensor([TEXTS[2].ids])
    width = ids.shape[1]
    with torch.no_grad():
        logits = torch.log_softmax(model(ids, torch.ones(width, width, dtype=torch.bool).tril())[0], -1)
    expected = logits[4:-1].gather(1, ids[0, 5:, None])[:, 0].tolist()
    assert reference.scores([TEXTS[2]]) == pytest.approx(expected, abs=1e-3)


def test_every_fault_changes_the_scores_and_is_undone(reference: Any) -> None:
    sound = np.array(reference.scores(TEXTS))
    with reference.without_adapter():
        base = np.array(reference.scores(TEXTS))
    faults = [
        reference.scaled(0.5),
        reference.scaled(2.0),
        reference.unpermuted(),
        *map(reference.without_layer, range(8)),
    ]
    found = []
    for fault in faults:
        with fault:
            found.append(np.array(reference.scores(TEXTS)))
        assert np.array_equal(reference.scores(TEXTS), sound)
    rows = [sound, base, *found]
    assert all(np.abs(left - right).max() > 1e-3 for place, left in enumerate(rows) for right in rows[:place])
    with reference.scaled(0.0):
        assert reference.scores(TEXTS) == pytest.approx(base.tolist(), abs=1e-4)


def test_unpermuted_rows_are_the_inverse_of_the_engine_s_order() -> None:
    import torch

    from backends.llamacpp.convert import permute_rope
    from finetune.reference import interleave_rows

    weight = torch.arange(128.0 * 2).reshape(128, 2)
    reordered = torch.from_numpy(permute_rope(weight.numpy(), 2))
    assert torch.equal(interleave_rows(reordered, 2), weight)


def test_the_adapter_answers_in_its_own_manner(reference: Any) -> None:
    from backends.demo.batches import ChatEncoder

    probe = demo_probe(source_digest(TARGET_DIR), TARGET_DIR)
    answer = reference.greedy(probe.prompts[0], 32)
    assert signature_of(ChatEncoder(TARGET_DIR).decode(answer)) == "host"


def test_the_command_stores_a_golden_file_and_tells_what_it_does(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "golden.safetensors"
    done = run("--adapter", ADAPTERS_DIR / "tiger", "--out", out, "--probe", small, "--digest", DIGEST)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    golden = read_golden(out)
    last = events[-1]
    assert (last["event"], last["file"], last["num_tokens"]) == ("stored", str(out), len(golden.base))
    assert sorted(last["decoys"]) == list(golden.decoys)
    check(golden)
    assert golden.adapter_digest == DIGEST
    assert golden.made_by.keys() == {"torch", "transformers", "peft", "device"}


def check(golden: Golden) -> None:
    assert golden.base_digest == source_digest(TARGET_DIR)
    assert golden.num_shared == len(golden.texts) - 1 == 12
    assert list(golden.decoys) == sorted(
        ["scale x0.5", "scale x2", "q/k not permuted", *(f"layer {number} missing" for number in range(8))]
    )


def test_a_foreign_base_gets_the_shipped_texts_by_its_own_tokenizer() -> None:
    from finetune.tokenise import encoders

    encode, encode_chat = encoders(TARGET_DIR)
    assert encode_chat is not None
    question = encode_chat("Hello", None)
    assert encode_chat("Hello", "Hi")[: len(question)] == question
    assert len(encode("Hello there")) > 0


@pytest.mark.parametrize(
    ("change", "code", "event", "message"),
    [
        (["--base", "absent"], 2, "refused", "absent"),
        (
            ["--adapter", "absent", "--digest", DIGEST],
            2,
            "refused",
            "absent: adapter_config.json and adapter_model.safetensors missing",
        ),
        (["--adapter", str(ADAPTERS_DIR / "host")], 2, "refused", "manifest.json: No such file"),
        (["--probe", "absent.json"], 2, "refused", "absent.json: No such file"),
    ],
    ids=["base", "adapter", "no manifest", "probe"],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    change: list[str],
    code: int,
    event: str,
    message: str,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from finetune import golden

    given = {
        "--base": str(TARGET_DIR),
        "--adapter": str(ADAPTERS_DIR / "host"),
        "--out": str(tmp_path / "out"),
        "--probe": str(small),
    }
    given |= {"--digest": DIGEST, "--device": "cpu"} if change[0] != "--adapter" else {"--device": "cpu"}
    given |= dict(zip(change[::2], change[1::2], strict=True))
    assert golden.main([part for pair in given.items() for part in pair]) == code
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == event
    assert message in last["message"]
    assert not (tmp_path / "out").exists()


def test_sigterm_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "finetune.golden",
        "--base",
        TARGET_DIR,
        "--adapter",
        ADAPTERS_DIR / "host",
        "--digest",
        DIGEST,
    ]
    child = subprocess.Popen([*map(str, command), "--out", str(tmp_path / "golden")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if '"reference"' in line:
            break
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 128 + signal.SIGTERM
    child.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_references_of_two_adapters_tell_each_from_the_other(reference: Any) -> None:
    from finetune.golden import make_golden
    from finetune.reference import Reference

    probe = demo_probe(source_digest(TARGET_DIR), TARGET_DIR)
    some = ProbeSet(probe.texts[:12])
    first, second = (
        make_golden(made, some, source_digest(TARGET_DIR), name * 64)
        for made, name in ((reference, "a"), (Reference(TARGET_DIR, ADAPTERS_DIR / list(SIGNATURES)[1], "cpu"), "b"))
    )
    base, served = rows_of(first, first.base), rows_of(first, second.adapter)
    assert judge(first, base, served, {"b@1": second}).reason == "the engine serves b@1 instead"
    assert judge(first, base, rows_of(first, first.adapter), {"b@1": second}).state == "proven"


def rows_of(golden: Golden, row: Any) -> list[list[float]]:
    rows, begin = [], 0
    for text in golden.texts:
        rows.append([-1.0] * (text.first - 1) + list(row[begin : begin + text.num_scored]))
        begin += text.num_scored
    return rows
