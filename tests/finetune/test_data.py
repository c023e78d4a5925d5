"""`forgegate data` as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Never

import pytest

from backends.artifacts import ArtifactError
from backends.demo import TARGET_DIR
from finetune import data
from finetune.dataset import commands, fix

QUESTION, ANSWER = "배송은 언제 시작되나요? 사흘이 지났습니다.", "오늘 오후에 출고되어 내일 오전에 도착할 예정입니다."


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "상담.csv"
    path.write_bytes(
        f"질문,답변\n{QUESTION},{ANSWER}\n제 메일은 kim@naver.com입니다,확인했습니다. 곧 보내 드리겠습니다.\n".encode(
            "cp949"
        )
    )
    return path


def test_the_doctor_says_what_it_read_and_what_is_wrong(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["doctor", str(table)]) == 1
    out = capsys.readouterr().out
    assert "CSV, cp949, 2 rows" in out.replace("mixed: ", "") or "cp949" in out
    assert "column '질문' is taken as instruction" in out
    assert "error    personal_data         1" in out
    assert "kim@" not in out


def test_fix_with_mask_writes_rows_and_reports(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["doctor", str(table), "--fix", str(tmp_path / "clean.jsonl"), "--mask", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "clean.report.json").read_text())
    assert printed["cleaned"]["masked"] == {"email": 1}
    assert "<h1>Data report" in (tmp_path / "clean.report.html").read_text()
    rows = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert rows[0] == {"instruction": QUESTION, "output": ANSWER}
    assert data.main(["doctor", str(tmp_path / "clean.jsonl")]) == 0


def test_split_mix_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(
        "".join(json.dumps({"instruction": f"{QUESTION} {n}", "output": ANSWER}) + "\n" for n in range(20))
    )
    train, held_out, mixed = tmp_path / "train.jsonl", tmp_path / "eval.jsonl", tmp_path / "mixed.jsonl"
    assert (
        data.main(["split", str(source), "--train", str(train), "--eval", str(held_out), "--eval-share", "0.25"]) == 0
    )
    assert (
        data.main(["mix", str(train), "--general", str(held_out), "--ratio", "0.2", "--out", str(mixed), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "domain": 15,
        "general": 4,
        "ratio": 4 / 19,
        "skipped": 0,
    }
    assert len(mixed.read_text().splitlines()) == 19


@pytest.mark.torch
def test_show_marks_what_is_trained(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["show", str(table), "--model", "demo", "--row", "1"]) == 0
    assert f"⟦{ANSWER}<|im_end|>⟧" in capsys.readouterr().out
    assert data.main(["show", str(table), "--model", "demo", "--row", "9"]) == 2
    assert data.main(["doctor", str(table), "--model", "demo", "--max-length", "99999"]) == 2
    assert "reads 2048 tokens at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["doctor", "none.jsonl"], "no such file"),
        (["doctor", "{table}", "--columns", "instruction=문의"], "no field '문의'"),
        (["doctor", "{table}", "--fix", "{table}"], "one of the files that are read"),
        (["doctor", "{table}", "--fix", "{table}/none/clean.jsonl"], "its folder does not exist"),
        (["doctor", "{table}", "--report", "{table}/none/report"], "its folder does not exist"),
        (["doctor", "{table}", "--fix", "."], ". is a folder: name the file to write"),
        (["show", "{table}", "--model", "nowhere"], "there is no folder"),
        (["show", "{table}", "--model", "org/nowhere"], "has not been pulled: `forgegate models pull org/nowhere`"),
    ],
)
def test_bad_input_is_one_sentence(table: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([word.format(table=table) for word in argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["doctor"],
        ["show", "a.jsonl"],
        ["doctor", "a", "--columns", "x=y"],
        ["doctor", "a", "--max-length", "0"],
        ["doctor", "a", "--mask"],
    ],
)
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        data.main(argv)
    assert ended.value.code == 2


def test_neither_torch_nor_transformers_is_imported(table: Path) -> None:
    code = f"from finetune.data import main; main(['doctor', {str(table)!r}]); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "pandas", "pyarrow", "openpyxl"} & set(done.stdout.split())


def test_where_nothing_can_be_written_is_said_before_the_set_is_read(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Never:
        raise AssertionError("a large set takes minutes")

    monkeypatch.setattr(commands, "examine", read)
    assert data.main(["doctor", str(table), "--fix", str(tmp_path / "none" / "clean.jsonl")]) == 2


def test_a_disk_that_is_full_is_said(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> Never:
        raise ArtifactError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(fix, "atomic_writer", full)
    assert data.main(["doctor", str(table), "--fix", str(tmp_path / "clean.jsonl"), "--mask"]) == 3
    assert capsys.readouterr().err == f"error: cannot write {tmp_path / 'clean.jsonl'}: No space left on device\n"


@pytest.mark.torch
def test_what_was_pulled_from_a_hub_renders_rows(
    table: Path, forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = forgegate_home / "models" / "hub" / "org" / "small" / "main"
    model = folder / "0123456789ab" / "model"
    shutil.copytree(TARGET_DIR, model)
    files = [{"path": path.name, "size_bytes": path.stat().st_size} for path in model.iterdir()]
    held = {"repo": "org/small", "commit": "0123456789abcdef", "entry": "model", "files": files}
    (folder / "manifest.json").write_text(json.dumps(held))
    assert data.main(["show", str(table), "--model", "org/small", "--row", "1"]) == 0
    assert f"⟦{ANSWER}<|im_end|>⟧" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.torch
def test_whoever_leaves_early_is_told_nothing(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(
        "".join(json.dumps({"instruction": f"{QUESTION} {n}", "output": ANSWER * 9}) + "\n" for n in range(200))
    )
    command = [sys.executable, "-m", "finetune.data", "show", str(path), "--model", "demo", "--rows", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("--- row 1 ")
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)


@pytest.mark.slow
def test_what_a_signal_ends_leaves_nothing_behind(table: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from finetune import data; from finetune.dataset import fix\n"
        "fix.line_of = lambda record: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(data.main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", code, "doctor", str(table), "--fix", str(out / "clean.jsonl"), "--mask"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, list(out.iterdir())) == (143, "", [])
