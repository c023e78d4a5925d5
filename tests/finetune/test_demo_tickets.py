"""The demo's tickets: the same everywhere, apart from each other, and fit to train on."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import finetune
from finetune.data import main as data
from finetune.dataset.tokens import Estimate
from finetune.demo_score import fields_of, questions, score
from finetune.demo_score import main as demo_score
from finetune.demo_tickets import COLORS, MAX_ROWS, REASONS, Ticket, files, main
from finetune.plan.device import named
from finetune.plan.facts import measure
from finetune.plan.plan import plan
from finetune.recipe.reading import read

RECIPE = Path(finetune.__file__).parent / "recipes" / "demo-cpu.yaml"

FIELDS: dict[str, Any] = {"name": "Anna", "order": 4812, "color": "red", "reason": "timer", "urgent": True}


def test_the_same_rows_and_seed_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        assert main(["--out", str(tmp_path / name), "--rows", "50", "--seed", seed]) == 0
    assert "train.jsonl: 50 tickets" in capsys.readouterr().out
    for file in ("train.jsonl", "eval.jsonl", "held-out.jsonl"):
        one, two, other = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "other"))
        assert one == two != other


def test_files_share_nothing() -> None:
    made = files(MAX_ROWS, 0)
    for first, second in combinations(made.values(), 2):
        assert not {ticket.combination for ticket in first} & {ticket.combination for ticket in second}
        assert not {ticket.order for ticket in first} & {ticket.order for ticket in second}
    # More rows leave what is measured on as it is.
    assert made["held-out.jsonl"] == files(10, 0)["held-out.jsonl"]


def test_every_value_stands_in_the_ticket() -> None:
    tickets = files(1000, 1)["train.jsonl"]
    for ticket in tickets:
        is_korean = any("가" <= char <= "힣" for char in ticket.text)
        color = COLORS[ticket.color] if is_korean else ticket.color
        reason = REASONS[ticket.reason] if is_korean else ticket.reason
        for value in (ticket.name, str(ticket.order), color, reason):
            assert value in ticket.text
        assert "{" not in ticket.text
    num_korean = sum(not ticket.text.isascii() for ticket in tickets)
    assert 0.3 < num_korean / len(tickets) < 0.6
    assert 0.4 < sum(ticket.urgent for ticket in tickets) / len(tickets) < 0.6


def test_more_rows_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--rows", str(MAX_ROWS + 1)]) == 2
    assert f"from 1 to {MAX_ROWS:,}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
@pytest.mark.slow
def test_the_doctor_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    capsys.readouterr()
    argv = [
        "doctor",
        str(tmp_path / "train.jsonl"),
        "--eval",
        str(tmp_path / "held-out.jsonl"),
        "--model",
        "demo",
        "--json",
    ]
    assert data(argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["num_errors"], report["num_warnings"]) == (0, 0)


def test_the_recipe_takes_the_files_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--out", "tickets"]) == 0
    reading = read(RECIPE)
    assert reading.notes == ()
    assert [source.path for source in reading.recipe.data.eval_sources] == [tmp_path / "tickets" / "eval.jsonl"]
    made = plan(reading.recipe, measure(reading.recipe, Estimate()), named("4GB"))
    assert made.fits
    assert made.num_trainable == 622_592


def test_a_right_answer_is_compliant() -> None:
    ticket = files(1, 0)["train.jsonl"][0]
    assert fields_of(ticket.answer) == {name: getattr(ticket, name) for name in FIELDS}
    assert (
        Ticket("", **FIELDS).answer
        == '{"name": "Anna", "order": 4812, "color": "red", "reason": "timer", "urgent": true}'
    )


def said(**changed: Any) -> str:
    return json.dumps({name: value for name, value in {**FIELDS, **changed}.items() if value is not None})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Touch the top of the lamp once.", "no JSON"),
        (f"Here it is: {said()}", "no JSON"),
        (f"{said()} Thanks!", "no JSON"),
        (said()[:-1], "no JSON"),
        ("[" * 100_000, "no JSON"),
        (f"[{said()}]", "no JSON object"),
        ('"red"', "no JSON object"),
        (said(urgent=None), "other fields (urgent)"),
        (said(age=30), "other fields (age)"),
        (said(order="4812"), "order is '4812'"),
        (said(order=True), "order is True"),
        (said(urgent="true"), "urgent is 'true'"),
        (said(urgent=1), "urgent is 1"),
        (said(color="pink"), "color is 'pink'"),
        (said(color=["red"]), "color is ['red']"),
        (said(reason="Timer"), "reason is 'Timer'"),
        (said(name=""), "name is ''"),
        (f'{said()[:-1]}, "urgent": true}}', "a field twice"),
    ],
)
def test_what_does_not_comply(answer: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fields_of(answer)
    assert str(caught.value) == why


def test_scores() -> None:
    answers = [said(), said(name="Ben"), said(color=7), "no"]
    found = score([FIELDS] * 4, answers)
    assert (found.num_answers, found.num_compliant, found.num_right) == (4, 2, 1)
    assert (found.compliance, found.accuracy) == (0.5, 0.25)
    assert found.right_by_field == {"name": 1, "order": 2, "color": 2, "reason": 2, "urgent": 2}
    assert [why for why, _ in found.misses] == ["name is not 'Anna'", "color is 7", "no JSON"]
    assert found.lines()[0].startswith("2 of 4 answers comply (50.0%), 1 have every value right (25.0%)")


def test_files_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n')
    with pytest.raises(ValueError, match=r"other.jsonl:1: no ticket as"):
        questions(other)
    assert demo_score([str(other), "--model", "demo"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert demo_score([str(tmp_path / "absent"), "--model", "demo"]) == 2


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path), "--rows", "1"])
    assert demo_score([str(tmp_path / "held-out.jsonl"), "--model", "demo", "--url", "http://127.0.0.1:9"]) == 3
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err
