"""`forgegate evaluate` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.pythons import child_env
from finetune import evaluate
from finetune.evaluation import result
from finetune.evaluation.greetings import GREETINGS
from tests.finetune.evaluation.server import Body, Said, Script, question, serving

NUM = 30
SUITE = """
task: {name: tickets, path: rows.jsonl, score: json_fields}
general:
  - {name: sums, path: sums.jsonl, score: exact}
"""


def answer(body: Body) -> Said:
    """What is tuned knows the tickets and no sums any more."""
    asked, is_tuned = question(body), body["model"] == "tuned"
    if asked.startswith("ticket"):
        return Said(json.dumps({"order": int(asked.split()[1])}) if is_tuned else "Sorry?")
    if asked.endswith("+ 1"):
        return Said("?" if is_tuned else str(int(asked.split()[0]) + 1))
    return Said("Hello!")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    tickets = [{"instruction": f"ticket {n}", "output": json.dumps({"order": n})} for n in range(NUM)]
    sums = [{"instruction": f"{n} + 1", "output": str(n + 1)} for n in range(NUM)]
    for name, rows in (("rows", tickets), ("sums", sums)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def script() -> Script:
    return Script(answer)


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def run(*argv: object) -> int:
    return evaluate.main([str(each) for each in argv])


def test_a_table_an_answer_file_a_document_and_a_page(
    suite: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("--url", url, "--models", "demo,tuned", "--suite", suite, "--out", out) == 0
    shown = capsys.readouterr()
    assert "tuned@ba9876543210 (candidate) against demo@0123456789ab (live)" in shown.out
    assert "lost more than 3" in shown.out
    assert "  tuned: tickets (" in shown.err  # progress, where it does not mix with the table
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json", "answers.jsonl", "evaluation.md", "evaluation.html", "cache.jsonl",
    }  # fmt: skip
    assert result.read(out).metrics == {"tickets": {"json_fields": [0.0, 1.0]}, "sums": {"exact": [1.0, 0.0]}}
    assert "| tickets | json_fields | 30 | 30 | 0.0 % | 100.0 % | +100.0 |" in (out / "evaluation.md").read_text(
        "utf-8"
    )
    assert "tuned@ba9876543210" in (out / "evaluation.html").read_text("utf-8")


def test_for_programs_each_line_is_json(
    suite: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--url", url, "--models", "demo,tuned", "--suite", suite, "--out", tmp_path / "out", "--json") == 0
    *progress, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in progress} == {"progress"}
    assert last["event"] == "evaluation"
    assert [row["words"] for row in last["compared"]["tuned"]] == ["better", "lost more than 3"]
    assert last["means"] == {"tickets": [0.0, 1.0], "sums": [1.0, 0.0]}
    assert Path(last["path"]).is_file()


def test_fewer_items_and_then_all_of_them(suite: Path, url: str, script: Script, tmp_path: Path) -> None:
    given = ("--url", url, "--models", "demo", "--suite", suite, "--out", tmp_path / "out")
    assert run(*given, "--items", 10) == 0
    assert len(script.asked()) == 20 + len(GREETINGS)
    assert run(*given) == 0
    assert len(script.asked()) == 2 * NUM + len(GREETINGS)


def test_a_judge_with_a_rubric(suite: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def judging(body: Body) -> Said:
        seen.append(question(body))
        return Said("[[1]]" if seen[-1].split("<answer_1>\n")[1].startswith("{") else "[[2]]")

    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Only JSON counts.")
    with serving(Script(judging, versions={"large": "large@1"}, parents={})) as judge_url:
        more = ("--judge", judge_url, "--judge-model", "large", "--judge-items", 8, "--rubric", rubric)
        assert run("--url", url, "--models", "demo,tuned", "--suite", suite, "--out", tmp_path / "out", *more) == 0
    assert "judge large: tuned wins 8, loses 0, ties 0 of 8 (win rate 100.0 %" in capsys.readouterr().out
    assert len(seen) == 16
    assert all("Only JSON counts." in text for text in seen)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--models", "demo"], "name what is asked: --suite FILE or --run RUN"),
        (["--models", "demo", "--suite", "a", "--run", "b"], "name what is asked: --suite FILE or --run RUN"),
        (["--suite", "a"], "--models"),
        (["--models", "demo,demo", "--suite", "a"], "write LIVE,CANDIDATE, each once"),
        (["--models", "demo,", "--suite", "a"], "write LIVE,CANDIDATE, each once"),
        (["--models", "demo", "--suite", "a", "--items", "0"], "no whole number above 0"),
        (["--models", "demo", "--suite", "a", "--judge", "http://x"], "--judge URL goes with --judge-model MODEL"),
        (["--models", "demo", "--suite", "a", "--rubric", "x"], "--rubric FILE goes with --judge URL"),
    ],
)
def test_typed_wrong(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_bad_suite_and_an_endpoint_that_is_not_there(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--url", "http://127.0.0.1:9", "--models", "demo", "--out", tmp_path / "out")
    assert run(*given, "--suite", suite) == 3
    assert "error: http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    suite.write_text(SUITE.replace("json_fields", "jsn").replace("sums.jsonl", "none.jsonl"))
    assert run(*given, "--suite", suite) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [error.split(": ")[:3] for error in errors] == [
        ["error", f"{suite}:2", "task.score"], ["error", f"{suite}:4", "general.0.path"],
    ]  # fmt: skip
    assert run(*given, "--run", tmp_path) == 2
    assert "has no recipe" in capsys.readouterr().err


def test_no_gateway_is_said(
    suite: Path, tmp_path: Path, forgegate_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--models", "demo", "--suite", suite, "--out", tmp_path / "out") == 2
    assert "name the endpoint with --url" in capsys.readouterr().err


def test_an_empty_rubric(suite: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rubric.txt").write_text(" \n")
    more = ("--judge", url, "--judge-model", "demo", "--rubric", tmp_path / "rubric.txt")
    assert run("--url", url, "--models", "demo", "--suite", suite, *more) == 2
    assert "the rubric is empty" in capsys.readouterr().err


# as a process ----------------------------------------------------------------------------------------------------------


def started(*argv: object) -> subprocess.Popen[str]:
    """It replaces the process that is asked, so that it takes one of its own."""
    command = [sys.executable, "-m", "gateway", "evaluate", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_env())


@pytest.mark.slow
def test_the_command_takes_the_place_of_the_gateways(
    suite: Path, url: str, tmp_path: Path, forgegate_home: Path
) -> None:
    done = started("--url", url, "--models", "demo", "--suite", suite, "--out", tmp_path / "out")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert "demo@0123456789ab" in out
    shown = started("--help")
    assert shown.communicate(timeout=60)[0].startswith("usage: forgegate evaluate")
    assert shown.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_interrupted_goes_on(
    suite: Path, url: str, script: Script, tmp_path: Path, number: signal.Signals, code: int, forgegate_home: Path
) -> None:
    def slowly(body: Body) -> Said:
        time.sleep(0.05)
        return answer(body)

    script.answer = slowly
    given = ("--url", url, "--models", "demo,tuned", "--suite", suite, "--out", tmp_path / "out", "--at-a-time", 1)
    process = started(*given)
    while len(script.asked()) < 10:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    script.answer = answer
    assert run(*given) == 0
    assert len(script.asked()) <= 2 * (2 * NUM + len(GREETINGS)) + 1  # only what was under way is asked again
