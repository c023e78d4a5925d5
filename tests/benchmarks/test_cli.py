import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main


def run(url: str, *more: str) -> int:
    base = [
        "run",
        "--no-ceiling",
        "--url",
        url,
        "--model",
        "alpha",
        "--concurrency",
        "1,3",
        "--requests",
        "6",
        "--output-tokens",
        "5",
        "--repeats",
        "1",
    ]
    return main([*base, *more])


def test_json_has_format_environment_and_levels(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "deep" / "result.json"
    assert run(url, "--json", "--out", str(out), "--repeats", "2", "--api-key", "hush-hush") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text("utf-8"))
    assert (result["format"], result["format_version"], result["kind"]) == ("forgegate.benchmark", 1, "run")
    assert {"cpu", "cores", "python", "date", "versions"} <= result["environment"].keys()
    assert [level["concurrency"] for level in result["levels"]] == [1, 3]
    assert [run["order"] for level in result["levels"] for run in level["runs"]] == [0, 3, 1, 2]
    pooled = result["levels"][1]["pooled"]
    assert (pooled["num_requests"], pooled["num_ok"], pooled["output_tokens"]) == (12, 12, 60)
    assert "hush-hush" not in printed.out
    assert "***" in result["command"]
    assert printed.err.count("answered") == 4


def test_forms_by_the_files_names(url: str, tmp_path: Path):
    outs = [tmp_path / f"result.{suffix}" for suffix in ("json", "csv", "md", "html")]
    assert run(url, *(word for out in outs for word in ("--out", str(out)))) == 0
    assert [out.read_text("utf-8")[:4] for out in outs] == ["{\n  ", "load", "alph", "<!do"]


def test_table(url: str, capsys: pytest.CaptureFixture[str]):
    assert run(url) == 0
    table = capsys.readouterr().out
    assert "output tok/s" in table
    assert "6/6" in table


def test_a_run_with_failures_is_loudly_invalid(url: str, capsys: pytest.CaptureFixture[str]):
    assert run(url, "--body", '{"mock": {"truncate_after": 2, "error_rate": 0.1}}', "--warmup", "0") == 1
    assert "INVALID" in capsys.readouterr().out


def test_short_answers_are_invalid(url: str, capsys: pytest.CaptureFixture[str]):
    body = '{"ignore_eos": false, "mock": {"tokens": 2}}'
    assert run(url, "--body", body) == 1
    assert "shorter than demanded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["rum"], 2, "did you mean 'run'"),
        ([], 2, "required"),
        (["run", "--concurency", "1"], 2, "did you mean '--concurrency'"),
        (["run", "--concurrency", "1,x"], 2, "'x' is not a whole number"),
        (["run", "--concurrency", "0"], 2, "at least 1"),
        (["run", "--out", "table.xls"], 2, "a result is written as .json, .csv, .md, .html"),
        (["run", "--concurrency", "2,2"], 2, "twice"),
        (["run", "--output-tokens", "9-3"], 2, "no length"),
        (["run", "--body", "{"], 2, "--body is not JSON"),
        (["run", "--url", "ftp://x"], 2, "not an http"),
        (["run", "--prompts", "/nowhere"], 2, "cannot read prompts"),
        (["run", "--prompt-form", "ids"], 2, "completions"),
        (["run", "--url", "http://127.0.0.1:9"], 3, "does not answer: connection refused"),
        (["mock", "--error-rate", "3"], 2, "error_rate must be between 0 and 1"),
        (["mock", "--host", "192.0.2.1"], 3, "cannot listen on 192.0.2.1:9000"),
    ],
)
def test_errors_are_one_line(argv: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(argv) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 2


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--model", "alpah"], 2, "did you mean 'alpha'"),
        ([], 2, "needs --model: one of alpha, beta"),
        (["--model", "alpha", "--body", '{"max_tokens": -1}'], 2, "400: max_tokens"),
        (["--model", "alpha", "--body", '{"mock": {"error_rate": 1}}'], 3, "no warm-up request was answered"),
    ],
)
def test_what_the_server_refuses(url: str, argv: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--url", url, "--concurrency", "1", *argv]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["mock"]])
def test_help_shows_an_example(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*command, "--help"]) == 0
    assert "forgegate bench" in capsys.readouterr().out


def test_others_may_have_commands_beside_ours(capsys: pytest.CaptureFixture[str]):
    others = {"start": "let somebody measure"}
    assert main(["--help"], others) == 0
    assert "let somebody measure" in capsys.readouterr().out
    assert main(["strat"], others) == 2
    assert "did you mean 'start'" in capsys.readouterr().err
    assert main(["--", "start"], others) == main(["start"]) == 2


def test_imports_nothing_of_ours():
    code = "import sys, benchmarks.cli, benchmarks.mock_server, benchmarks.peers; print([m for m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    loaded = eval(done.stdout)  # a list of names that this test printed itself
    assert not [name for name in loaded if name.partition(".")[0] in ("gateway", "backends", "torch", "numpy")]
