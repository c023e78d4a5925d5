"""Every broken adapter is refused for what is wrong with it, with a way to mend it, and nothing of it stays."""

from __future__ import annotations

import io
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.adapter import ingest
from backends.adapter.config_rules import VARIANTS, WHOLE_WEIGHTS
from backends.vllm.options import LINEAR_MODULES
from tests.backends.adapter.faulty import (
    ARCHIVES,
    FAULTS,
    HOST,
    Q_A,
    Q_B,
    configured,
    copy_of,
    f16,
    packed,
    tensors_changed,
    void,
)  # fmt: skip
from tests.backends.adapter.ingesting import Ingester, Told, whole


def check_refused(told: Told, rule: str, tensor: str, words: str) -> None:
    assert told.code == 2, told.last
    assert told.last["event"] == "refused"
    problems = [problem for problem in told.last["problems"] if problem["rule"] == rule]
    assert any(words in problem["message"] for problem in problems), told.last["problems"]
    assert any(tensor in ("", problem["tensor"]) for problem in problems), problems
    assert all(problem["message"] and problem["fix"] for problem in told.last["problems"])


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_by_its_rule(
    name: str, ingester: Ingester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MATCHING_S", 0.2)
    fault = FAULTS[name]
    folder = copy_of(HOST, tmp_path / "adapter")
    fault.make(folder)
    check_refused(ingester(folder, engines=fault.engines), fault.rule, fault.tensor, fault.words)
    assert ingester.left() == []


@pytest.mark.parametrize("name", ARCHIVES)
def test_each_bad_archive_is_refused(
    name: str, ingester: Ingester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ARCHIVES[name]
    (tmp_path / "upload.tar").write_bytes(fault.make(HOST))
    check_refused(ingester(tmp_path / "upload.tar"), fault.rule, fault.tensor, fault.words)
    assert ingester.left() == []


def test_every_refused_setting_has_a_fault_that_shows_it() -> None:
    shown = {fault.rule for fault in FAULTS.values()}
    told = {rule for rule, _ in (*VARIANTS.values(), *WHOLE_WEIGHTS.values())}
    assert told <= shown


def test_all_problems_are_told_at_once(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    configured(use_dora=True, bias="all", r=0)(folder)
    tensors_changed(lambda tensors: void(tensors.pop(Q_B)))(folder)
    FAULTS["nan"].make(folder)
    told = ingester(folder)
    assert {problem["rule"] for problem in told.last["problems"]} == {
        "dora", "bias", "rank", "missing-factor", "not-finite",
    }  # fmt: skip


def test_a_fault_of_every_tensor_is_told_five_times_and_counted(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    configured(r=16)(folder)
    problems = ingester(folder).last["problems"]
    assert len(problems) == 6
    assert problems[-1]["message"] == f"and {2 * 56 - 5} more like these"


def test_only_the_engines_that_shall_serve_it_are_named(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    configured(use_dora=True)(folder)
    assert "vLLM cannot" in ingester(folder, engines="vllm").last["problems"][0]["message"]
    assert "llama.cpp cannot" in ingester(folder, engines="llamacpp").last["problems"][0]["message"]


def test_a_rank_beyond_vllm_is_served_by_llamacpp_alone(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    rank = 600

    def widen(tensors: dict[str, object]) -> None:
        tensors.clear()
        name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
        tensors[name.format("A")] = f16(np.full((rank, 256), 0.01))
        tensors[name.format("B")] = f16(np.full((768, rank), 0.01))

    tensors_changed(widen)(folder)  # type: ignore[arg-type]
    configured(r=rank, target_modules=["up_proj"], layers_to_transform=[0])(folder)
    check_refused(ingester(folder), "rank-limit", "", "vLLM takes up to 512")
    assert ingester(folder, engines="llamacpp").code == 0


def limited(ingester: Ingester, folder: Path, **limits: object) -> Ingester:
    """The same base, whose vLLM engines take this."""
    told = json.loads(ingester.base.read_text())
    base = folder / "limited.json"
    base.write_text(json.dumps({**told, "vllm": {"max_rank": 16, "target_modules": LINEAR_MODULES, **limits}}))
    return replace(ingester, base=base)


def test_a_rank_above_that_of_the_vllm_engines_is_refused_with_the_option_that_mends_it(
    ingester: Ingester, tmp_path: Path
) -> None:
    narrow = limited(ingester, tmp_path, max_rank=1)
    told = narrow(HOST, engines="vllm,llamacpp")
    check_refused(told, "vllm-max-rank", "", "take up to 1")
    assert told.last["problems"][0]["fix"] == (
        "set lora.max_rank: 8 in the options of its vllm pool, or train with a smaller r"
    )
    assert narrow(HOST, engines="llamacpp").code == 0


def test_a_module_that_the_vllm_engines_leave_alone_is_refused_with_the_option_that_mends_it(
    ingester: Ingester, tmp_path: Path
) -> None:
    without = limited(ingester, tmp_path, target_modules=[name for name in LINEAR_MODULES if name != "q_proj"])
    told = without(HOST, engines="vllm")
    check_refused(told, "vllm-target", Q_A, "is on q_proj, which the vLLM engines")
    assert "add q_proj to lora.target_modules" in told.last["problems"][0]["fix"]
    assert {problem["rule"] for problem in told.last["problems"]} == {"vllm-target"}
    assert limited(ingester, tmp_path)(HOST, engines="vllm").code == 0


def test_an_adapter_that_does_nothing_is_stored_with_a_warning(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")

    def clear(tensors: dict[str, object]) -> None:
        tensors.update({name: f16(np.zeros(t.shape)) for name, t in tensors.items() if ".lora_B." in name})  # type: ignore[attr-defined]

    tensors_changed(clear)(folder)  # type: ignore[arg-type]
    told = ingester(folder)
    assert told.code == 0
    assert [warning["rule"] for warning in told.last["manifest"]["warnings"]] == ["no-effect"]


def test_missing_layers_and_an_own_tokenizer_are_warned_of(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    tensors_changed(lambda tensors: [void(tensors.pop(name)) for name in (Q_A, Q_B)] and None)(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("# mine")
    told = ingester(folder)
    assert told.code == 0
    assert {warning["rule"] for warning in told.last["manifest"]["warnings"]} == {"untrained-target", "own-tokenizer"}
    assert told.last["manifest"]["uploaded"]["dropped"] == ["README.md", "chat_template.jinja"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives_of_either_kind_become_the_same_version_as_the_folder(
    mode: str, ingester: Ingester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = ingester(HOST).last["digest"]
    raw = packed(HOST, mode=mode)
    (tmp_path / "upload.tar").write_bytes(raw)
    assert ingester(tmp_path / "upload.tar").last["digest"] == digest
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    told = ingester("-")
    assert (told.last["digest"], told.last["is_new"]) == (digest, False)
    assert ingester.left() == whole(digest)


@pytest.mark.parametrize("prefix", ["./", "support/", "a/b/"])
def test_the_files_may_lie_in_a_folder_of_the_archive(prefix: str, ingester: Ingester, tmp_path: Path) -> None:
    (tmp_path / "upload.tar").write_bytes(packed(HOST, prefix=prefix, apart=prefix))
    assert ingester(tmp_path / "upload.tar").code == 0


def test_a_trainers_checkpoint_folder_is_taken(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "trainer_state.json"):
        (folder / name).write_bytes(b"x")
    (folder / "checkpoint-10").mkdir()
    assert ingester(folder).code == 0


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_is_refused_or_harmless_and_never_a_crash(
    seed: int, ingester: Ingester, tmp_path: Path
) -> None:
    raw = damaged(packed(small_adapter(tmp_path / "small")), seed)
    (tmp_path / "upload.tar").write_bytes(raw)
    told = ingester(tmp_path / "upload.tar")
    assert told.last["event"] == ("stored" if told.code == 0 else "refused")
    assert len([name for name in ingester.left() if "/" not in name]) == (told.code == 0)


def small_adapter(folder: Path) -> Path:
    copy_of(HOST, folder)
    configured(target_modules=["q_proj"], layers_to_transform=[0])(folder)
    tensors_changed(
        lambda tensors: [void(tensors.pop(name)) for name in list(tensors) if name not in (Q_A, Q_B)] and None
    )(folder)
    return folder


def damaged(raw: bytes, seed: int) -> bytes:
    """Some bytes changed, most of them where structure is: headers of the archive, JSON; or a piece is missing or doubled."""
    draw, changed = random.Random(seed), bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        at = draw.choice([draw.randrange(4096), draw.randrange(len(changed))])
        match draw.randrange(4):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:
                del changed[at : at + draw.choice([1, 7, 512])]
            case 2:
                changed[at:at] = changed[at : at + draw.choice([1, 7, 512])]
            case _:
                changed[at : at + 3] = draw.choice([b"999", b"-1,", b"[[[", b"\0\0\0", b'"""'])
    return bytes(changed)


def test_the_total_is_limited_also_of_what_is_dropped(ingester: Ingester, tmp_path: Path) -> None:
    folder = copy_of(HOST, tmp_path / "adapter")
    (folder / "README.md").write_bytes(b"\0" * 2_000_000)
    (tmp_path / "upload.tar").write_bytes(packed(folder, mode="w:gz"))
    check_refused(ingester(tmp_path / "upload.tar", "--max-bytes", "1000000"), "size", "", "more than 1,125,000 bytes")
    check_refused(ingester(HOST, "--max-bytes", "600000"), "size", "adapter_model.safetensors", "600,000 are allowed")
    assert ingester.left() == []
