"""`forgegate parity`: what it takes, and how a verdict reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.parity.__main__ import main, parser
from finetune.parity.causes import Cause
from finetune.parity.checks import Check
from finetune.parity.measure import Verdict
from finetune.parity.show import lines
from finetune.parity.tolerance import AUTO, NAMES

VERDICT = Verdict(
    False, "support", "support@3f2a91c04b7d", "Q8_0", 5, 40, {"with tool calls": 2},
    (Check("ids", "fail", "5 of 5 differ", (1, 2)), Check("scores", "pass", "all right")), (Cause("template", "another one"),), 1.5,
)  # fmt: skip


def test_a_verdict_reads_from_the_result_to_the_cause() -> None:
    assert list(lines(VERDICT)) == [
        "support@3f2a91c04b7d: parity FAILS on 5 held-out rows",
        "  fail    ids     5 of 5 differ",
        "  pass    scores  all right",
        "  passed over: 2 rows with tool calls",
        "likely cause: template: another one",
    ]
    told = json.loads(json.dumps(VERDICT.as_json()))
    assert (told["event"], told["causes"][0]["name"], told["checks"][0]["rows"]) == ("parity", "template", [1, 2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "m"], "name either --run RUN or --adapter DIR"),
        (["--model", "m", "--run", "r", "--adapter", "a"], "name either --run RUN or --adapter DIR"),
        (["--model", "m", "--adapter", "a"], "--adapter DIR goes with --data FILE"),
        (["--model", "m", "--run", "r", "--rows", "0"], "'0' is no whole number above 0"),
        (["--run", "r"], "--model"),
    ],
)
def test_usage_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_without_a_gateway_it_says_what_to_name(
    forgegate_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORGEGATE_URL", raising=False)
    assert main(["--model", "m", "--run", str(forgegate_home)]) == 2
    assert "name the endpoint with --url" in capsys.readouterr().err
    assert main(["--model", "m", "--url", "http://127.0.0.1:9", "--run", str(forgegate_home / "none")]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_every_format_is_a_choice() -> None:
    args = parser().parse_args(["--model", "m", "--run", "r"])
    assert args.weights == AUTO
    assert parser().parse_args(["--model", "m", "--run", "r", "--weights", NAMES[-1]]).weights == "Q2_K"
