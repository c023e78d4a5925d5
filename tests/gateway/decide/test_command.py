"""`forgegate decide` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.pythons import child_env
from gateway import cli
from gateway.decide import command
from gateway.decide.chart import Way, ways
from gateway.decide.numbers import Asked, numbers, shipped
from gateway.exits import BAD_INPUT, DONE, UNABLE

FINE_TUNING = ("--no-prompting-enough", "--no-needs-documents", "--needs-format")


def flags(way: Way) -> list[str]:
    return [f"--{'' if answer else 'no-'}{question.value}" for question, answer in way.steps]


def run(*argv: str) -> int:
    return cli.main(["decide", *argv])


@pytest.mark.parametrize("way", [*ways()], ids=lambda way: f"{len(way.steps)}-{way.end}")
def test_flags_alone_decide(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags(way), "--no-plan", "--json") == DONE
    assert json.loads(capsys.readouterr().out)["outcome"] == way.end


def test_without_a_terminal_an_open_question_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--no-prompting-enough") == BAD_INPUT
    assert "--needs-documents or --no-needs-documents?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--no-plan", "--gpu", "24GB"), "--no-plan and --gpu exclude each other"),
        (("--rows", "0"), "no whole number above 0"),
        (("--gpu-hour-price", "nan"), "is no price"),
        (("--lang", "fr"), "invalid choice"),
        (("--recipe", "no-such-recipe"), "none of the shipped recipes: demo-cpu, "),
    ],
)
def test_usage_is_checked_first(argv: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FINE_TUNING, *argv) == BAD_INPUT
    assert said in capsys.readouterr().err


def test_fine_tuning_comes_with_the_numbers_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "decision.md"
    assert run(*FINE_TUNING, "--rows", "2000", "--gpu-hour-price", "0.5", "--out", str(out), "--json") == DONE
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["data"]["num_rows"], plan["data"]["num_eval_rows"]) == (1800, 200)
    assert plan["device"]["name"] == "RTX 4090"
    assert plan["cost"]["tries"]["5"] == pytest.approx(5 * plan["cost"]["one_try"])
    text = out.read_text(encoding="utf-8")
    assert "| memory " in text
    assert f"{plan['num_trainable']:,}" in text


@pytest.mark.parametrize("name", [*shipped()])
def test_every_shipped_recipe_has_a_plan_before_anything_is_here(name: str, forgegate_home: Path) -> None:
    plan = numbers(Asked(name, rows=500, gpu="H100", price=3))
    assert plan["cost"]["one_try"] > 0
    assert plan["fits"]


def test_a_plan_that_fails_leaves_the_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base_model: demo\nlora_r: many\n")
    assert run(*FINE_TUNING, "--recipe", str(recipe), "--lang", "en") == BAD_INPUT
    done = capsys.readouterr()
    assert "**Answer: Fine-tuning.**" in done.out
    assert "There are no numbers:" in done.out
    assert "lora_r" in done.err


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_planned_for_its_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Reset it", "output": "Open the page."}\n' * 30)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base_model: demo\nadapter: lora\ndatasets: [{path: rows.jsonl}]\n")
    assert run(*FINE_TUNING, "--recipe", str(recipe), "--gpu", "24GB", "--json") == DONE
    assert json.loads(capsys.readouterr().out)["plan"]["data"]["num_rows"] == 30


def test_answers_that_the_way_does_not_ask_for_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--prompting-enough", "--too-slow", "--lang", "en") == DONE
    assert "Given, and not asked on this way: `--too-slow`." in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("--prompting-enough", "--out", str(tmp_path / "file" / "x.md")) == UNABLE
    assert "--out" in capsys.readouterr().err


def test_the_language_is_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    assert run("--prompting-enough") == DONE
    assert "**결론: 프롬프트 엔지니어링.**" in capsys.readouterr().out
    assert run("--prompting-enough", "--lang", "en") == DONE
    assert "**Answer: Prompt engineering.**" in capsys.readouterr().out


def in_a_terminal(typed: str, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and what the terminal shows of stderr; only the result is piped."""
    ours, theirs = pty.openpty()
    env = child_env() | {"LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "decide", *argv], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as child:  # fmt: skip
        os.close(theirs)
        os.write(ours, typed.encode())
        out, err = child.communicate(timeout=60)
        os.close(ours)
    return child.returncode, out.decode(), err.decode()


def test_in_a_terminal_the_rest_is_asked() -> None:
    code, out, err = in_a_terminal("n\n?\nn\nb\nn\ny\ndemo-cpu\nmany\n300\nH100\n3\n", "--json")
    assert code == DONE, err
    found = json.loads(out)
    assert found["outcome"] == "fine-tuning"
    assert found["plan"]["base"] == "demo"
    assert found["plan"]["data"]["num_rows"] == 300
    assert found["plan"]["cost"]["one_try"] > 0
    assert "'many' is no whole number above 0" in err


def test_q_ends_it_without_a_result() -> None:
    code, out, _ = in_a_terminal("n\nq\n")
    assert (code, out) == (command.QUIT, "")
