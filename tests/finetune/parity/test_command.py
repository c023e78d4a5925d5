"""`forgegate parity`: what it takes, and how a verdict reads."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Never

import pytest

from finetune.parity import __main__ as command
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


def test_what_is_not_checked_does_not_hold() -> None:
    skipped = Check("scores", "skipped", "the endpoint gives no log-probabilities of a prompt: Not Found")
    unchecked = replace(VERDICT, checks=(Check("ids", "pass", "all right"), skipped), causes=())
    assert next(lines(unchecked)) == (
        "support@3f2a91c04b7d: parity is NOT CHECKED (not checked: scores) on 5 held-out rows"
    )
    assert (unchecked.state, unchecked.exit_code, unchecked.as_json()["state"]) == ("unchecked", 3, "unchecked")
    assert (VERDICT.state, VERDICT.exit_code) == ("fails", 1)
    held = replace(VERDICT, is_passed=True, checks=(replace(skipped, name="ids"),), causes=())
    assert (held.exit_code, next(lines(held)).partition(": ")[2]) == (
        0,
        "parity holds (not checked: ids) on 5 held-out rows",
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://gpu:port", "http://gpu:port is no address"), ("gpu:8080", "write it as http://gpu-1:8080")],
)
def test_what_is_no_address_is_said(url: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "m", "--url", url, "--run", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_it_ends_as_the_signal_says_that_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missed(*_: object) -> Never:
        raise AssertionError("SIGTERM would have ended this process without a word")

    def ended(*_: object) -> Never:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr(command, "endpoint", ended)
    before = signal.signal(signal.SIGTERM, missed)
    try:
        assert main(["--model", "m", "--run", str(tmp_path)]) == 143
        assert (signal.getsignal(signal.SIGTERM), capsys.readouterr().err) == (missed, "")
    finally:
        signal.signal(signal.SIGTERM, before)


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
