from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.vllm.measured import (
    FILE,
    SEEN_S,
    Memory,
    Record,
    Seen,
    Subject,
    draft_identity,
    machine,
    relevant_options,
)
from backends.vllm.options import Options
from backends.vllm.speculation import OFF, Measurement, Rate, Setting

SUBJECT = Subject("sha256:m", "sha256:d", "0.32.0 on cpu", "{}", "a cpu x 2")
VARIED = Setting(4, ((1, 2, 4), (3, 8, 0)))
MEASURED = Measurement(
    off={1: Rate(100), 8: Rate(800, spread=0.1)},
    on={4: {1: Rate(180, 2.9), 8: Rate(500, 2.8)}},
    varied=VARIED,
    varied_rates={1: Rate(179, 2.9), 8: Rate(795)},
)
RECORD = Record(SUBJECT, MEASURED, "2026-01-01T00:00:00Z")


def test_what_was_noted_is_found_again_by_exactly_what_it_holds_for(tmp_path: Path) -> None:
    Memory(tmp_path / "models").note(RECORD)
    memory = Memory(tmp_path / "models")
    assert memory.find(SUBJECT) == RECORD
    for name in ("model", "draft", "version", "options", "machine"):
        assert memory.find(replace(SUBJECT, **{name: "other"})) is None, name
    other = replace(RECORD, subject=replace(SUBJECT, model="other"))
    memory.note(other)
    memory.note(replace(RECORD, seen=Seen(4, 1.5, 5.0)))
    assert memory.find(SUBJECT) == replace(RECORD, seen=Seen(4, 1.5, 5.0))
    assert memory.find(other.subject) == other
    assert os.listdir(tmp_path / "models") == [FILE]


@pytest.mark.parametrize("content", ["", "[]", '{"x": {"subject": 1}}', "\xff"])
def test_a_damaged_file_is_an_empty_one_and_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, encoding="latin-1")
    memory = Memory(tmp_path)
    assert memory.find(SUBJECT) is None
    memory.note(RECORD)
    assert memory.find(SUBJECT) == RECORD


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        Memory(tmp_path).note(RECORD)
    assert os.listdir(tmp_path) == []


def test_what_clients_accept_goes_into_the_next_start() -> None:
    assert RECORD.setting == VARIED
    assert replace(RECORD, seen=Seen(4, 2.8, 5.0)).setting == VARIED
    assert replace(RECORD, seen=Seen(4, 1.1, 5.0)).setting == OFF
    assert replace(RECORD, seen=Seen(7, 1.1, 5.0)).setting == VARIED, "that depth was not measured"


def test_what_was_seen_counts_for_a_day() -> None:
    seen = replace(RECORD, seen=Seen(4, 1.1, 5.0))
    assert seen.as_of(5.0 + SEEN_S) == seen
    assert seen.as_of(5.1 + SEEN_S) == RECORD
    assert RECORD.as_of(5.0) == RECORD


def test_only_options_that_matter_make_a_measurement_void() -> None:
    def of(**speculative: object) -> str:
        given = {"method": "ngram", "num_speculative_tokens": 4, **speculative}
        return relevant_options(Options.from_mapping({"speculative": given, "enforce_eager": True}))

    assert of() == of(schedule="always") == of(num_speculative_tokens_per_batch_size=[[1, 8, 2]])
    assert of() != of(num_speculative_tokens=3)
    assert of() != of(prompt_lookup_max=3)
    plain = Options.from_mapping({})
    assert relevant_options(plain) == relevant_options(replace(plain, tool_call_parser="hermes", seed=1))
    assert relevant_options(plain) != relevant_options(replace(plain, max_num_seqs=4))


def test_a_draft_is_known_by_its_content_or_its_name(tmp_path: Path) -> None:
    draft = Path(__file__).parents[3] / "backends" / "demo" / "weights" / "draft"
    assert draft_identity(str(draft), tmp_path).startswith("sha256:")
    file = tmp_path / "head.bin"
    file.write_bytes(b"x")
    first = draft_identity(str(file), tmp_path)
    file.write_bytes(b"yz")
    assert first.startswith("sha256:")
    assert draft_identity(str(file), tmp_path) != first
    assert draft_identity("org/draft", tmp_path) == "org/draft"
    assert draft_identity("", tmp_path) == ""


def test_the_machine_is_its_processor_cores_and_gpus(tmp_path: Path) -> None:
    assert machine(tmp_path, {}) == f"cpu x {len(os.sched_getaffinity(0))}"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz: fast\nmodel name\t: other\n")
    for number in range(2):
        folder = tmp_path / "driver" / "nvidia" / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    found = machine(tmp_path, {"CUDA_VISIBLE_DEVICES": "1"})
    assert found.startswith("Some CPU @ 2 GHz: fast x ")
    assert found.endswith(", NVIDIA H200, NVIDIA H200, of which 1")
