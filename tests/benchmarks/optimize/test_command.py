"""The command: what it refuses, and a short search on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.commands.exits import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_NEGATIVE, EXIT_USAGE
from benchmarks.optimize.command import INTERRUPTED, main
from benchmarks.optimize.journal import opened
from benchmarks.optimize.options import budget, parser, wanted
from gateway.configfile import load

SLO = "ttft_p90<10s"
DEMO = ["--model", "demo", "--slo", SLO, "--budget", "5m"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "demo", "--slo", SLO], "--budget"),
        ([*DEMO, "--budget", "20"], "write 20m, 90s or 1h30m"),
        ([*DEMO, "--budget", "0m"], "no time at all"),
        ([*DEMO, "--slo", "ttft:500"], "without percentiles no load can break it"),
        ([*DEMO, "--slo", "ttfd_p99<1s"], "names 'ttfd'"),
        ([*DEMO, "--over", "n_seq_maxx=16"], "did you mean 'n_seq_max'"),
        ([*DEMO, "--over", "flash_attn=maybe"], "must be one of auto, on, off"),
        ([*DEMO, "--set", "n_ctx=4096", "--over", "n_ctx=8192"], "cannot be fixed and varied"),
        ([*DEMO, "--draft", "demo"], "llama.cpp engines do not speculate"),
        ([*DEMO, "--serch", "grid"], "did you mean '--search'"),
        ([*DEMO, "--search", "gird"], "did you mean 'grid'"),
        ([*DEMO, "--engine", "vllm", "--over", "max_num_seq=16"], "max_num_seqs"),
        ([*DEMO, "--endpoint", "embeddings"], "chat or completions"),
        ([*DEMO, "--max-load", "2.5"], "a whole number of streams"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == EXIT_USAGE
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--model",
        str(tmp_path / "missing.gguf"),
        "--slo",
        SLO,
        "--budget",
        "2m",
        "--work",
        str(tmp_path / "work"),
    ]
    assert main(words) in (EXIT_USAGE, EXIT_ENVIRONMENT)
    assert "missing.gguf" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("90s", 90), ("1h30m", 5400), ("2h", 7200)])
def test_budgets(text: str, seconds: float) -> None:
    assert budget(text) == seconds


def test_what_is_fixed_is_left_out_of_the_usual_list() -> None:
    search = wanted(parser().parse_args([*DEMO, "--set", "n_batch=256"]))
    assert "n_batch" not in [dimension.name for dimension in search.task.space.dimensions]
    assert search.task.space.fixed == {"n_batch": 256}


def test_answers_of_prompts_from_a_file_may_end_by_themselves() -> None:
    assert wanted(parser().parse_args(DEMO)).served.workload.ignore_eos
    assert not wanted(parser().parse_args([*DEMO, "--prompts", "demo"])).served.workload.ignore_eos
    assert wanted(parser().parse_args([*DEMO, "--prompts", "demo", "--ignore-eos"])).served.workload.ignore_eos


def test_a_folder_of_another_search_is_refused_by_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*DEMO, "--work", str(tmp_path)]
    with opened(tmp_path, wanted(parser().parse_args(words)).identity()):
        pass
    assert main([*words, "--output-tokens", "64"]) == EXIT_USAGE
    assert "its output_tokens is 128, not 64" in capsys.readouterr().err


SHORT = [
    "--max-load", "4", "--requests", "4", "--output-tokens", "16", "--over", "n_seq_max=default,1", "--over", "n_ctx=default,256000000",
    "--search", "grid",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(180)
def test_a_short_search_on_a_real_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DEMO, *SHORT, "--work", str(tmp_path), "--json"]
    code = main(words)
    result = json.loads(capsys.readouterr().out)
    assert code == (EXIT_DONE if result["is_recommended"] else EXIT_NEGATIVE)
    outcomes = {json.dumps(trial["setting"]): trial["outcome"] for trial in result["trials"]}
    assert outcomes["{}"] == outcomes['{"n_seq_max": 1}'] == "measured"
    [unstartable] = [trial for trial in result["trials"] if trial["setting"] == {"n_ctx": 256000000}]
    assert unstartable["outcome"] == "did not start"
    assert unstartable["reason"]
    first = result["trials"][0]
    assert first["quality"]["agreement"] > 0.9
    assert first["quality"]["change"] == pytest.approx(0.0, abs=1e-3)  # batches round in their own ways
    if result["block"]:
        assert load(tmp_path / "forgegate.yaml").models[0].name == "demo"
    assert main(words) == code  # from the journal: nothing is started
    again = json.loads(capsys.readouterr().out)
    assert again["trials"] == result["trials"]


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(120)
def test_interrupted_it_ends_its_engine_and_goes_on_later(tmp_path: Path) -> None:
    words = [*DEMO, *SHORT, "--work", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "optimize", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    journal = tmp_path / "journal.jsonl"
    deadline_s = time.monotonic() + 60
    while not (journal.exists() and b'"probe"' in journal.read_bytes()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=40)
    assert process.returncode == INTERRUPTED
    assert "the same command goes on" in said
    assert not _of_home(tmp_path / "gateway" / "home")


def _of_home(home: Path) -> list[str]:
    """Processes that were started for it."""
    mark = f"FORGEGATE_HOME={home}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
