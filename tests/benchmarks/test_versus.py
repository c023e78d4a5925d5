"""`bench versus` and `bench compare`, against a mock."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from benchmarks.cli import main

TRACE = """{"timestamp": 0, "input_length": 6, "output_length": 3, "hash_ids": [1]}
{"timestamp": 200, "input_length": 8, "output_length": 4, "hash_ids": [1]}
"""
NOWHERE = "http://127.0.0.1:1"
SLOWER = '{"mock": {"itl_ms": 6}}'


def versus(url: str, *more: str) -> int:
    return main(
        ["versus", url, url, "--model", "alpha", "--concurrency", "2", "--requests", "8", "--output-tokens", "5", *more]
    )


def run(url: str, out: Path, *more: str) -> None:
    words = [
        "run",
        "--no-ceiling",
        "--url",
        url,
        "--model",
        "alpha",
        "--concurrency",
        "2",
        "--requests",
        "24",
        "--output-tokens",
        "5",
    ]
    assert main([*words, "--repeats", "3", "--out", str(out), *more]) == 0


def test_the_same_requests_go_to_both_in_turns(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "versus.json"
    assert (
        versus(
            url, "--model-b", "beta", "--repeats", "3", "--out", str(out), "--api-key", "hush", "--api-key-b", "hush-b"
        )
        == 0
    )
    said = capsys.readouterr()
    assert [line[0] for line in said.err.splitlines()] == ["A", "B", "B", "A", "A", "B"]
    result = orjson.loads(out.read_bytes())
    assert (result["kind"], result["is_valid"]) == ("versus", True)
    assert "hush" not in str(result)
    (load,) = result["loads"]
    assert len(load["pairs"]) == 3
    for pair in load["pairs"]:
        assert pair["A"]["input_tokens"] == pair["B"]["input_tokens"]
    ratio = load["figures"]["output_tps"]["ratio"]
    assert ratio["low"] < ratio["estimate"] < ratio["high"]
    assert "output_tps" in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["versus", "http://127.0.0.1:1"], "the following arguments are required: URL_B"),
        (["versus", "http://127.0.0.1:1", "http://127.0.0.1:1", "--repeats", "2"], "at least 3"),
        (["versus", NOWHERE, NOWHERE, "--trace", "x"], "--trace needs --trace-format"),
        (
            ["versus", NOWHERE, NOWHERE, "--trace", "x", "--trace-format", "azure", "--output-tokens", "9"],
            "--trace says what is asked: leave --output-tokens out",
        ),
        (["versus", "http://127.0.0.1:1", "http://127.0.0.1:1", "--out", "/dev/null/x.json"], "cannot be written"),
        (["run", "--out", "/dev/null/x.json"], "--out /dev/null/x.json: cannot be written"),
        (["compare", "no-such.json", "neither.json"], "cannot read no-such.json"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_a_trace_is_replayed_to_both(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "mooncake.jsonl", tmp_path / "versus.json"
    trace.write_text(TRACE)
    words = ["versus", url, url, "--model", "alpha", "--repeats", "3", "--out", str(out)]
    words += ["--trace", str(trace), "--trace-format", "mooncake", "--trace-scale", "0.5"]
    assert main(words) in (0, 1), capsys.readouterr().err  # valid or not: it is too short to tell anything
    (load,) = orjson.loads(out.read_bytes())["loads"]
    assert load["load"] == {"loop": "open", "trace": "mooncake.jsonl", "requests": 2, "length_s": 0.1}
    assert len(load["pairs"]) == 3
    for pair in load["pairs"]:
        for side in ("A", "B"):
            assert (pair[side]["num_ok"], pair[side]["input_tokens"], pair[side]["output_tokens"]) == (2, 14, 7)


@pytest.mark.parametrize("option", ["--requests-from", "--save-requests"])
def test_saved_lists_are_not_sent_in_turns_and_not_offered(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is sent again byte for byte is answered from a prefix cache."""
    assert main(["versus", "--help"]) == 0
    assert option not in capsys.readouterr().out
    assert main(["versus", NOWHERE, NOWHERE, option, "x"]) == 2
    assert f"unknown argument '{option}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        ("--profile", "sweep", "'sweep'; one of closed, open"),
        ("--profile", "capacity", "'capacity'; one of closed, open"),
        ("--sweep-rates", "3", "unknown argument '--sweep-rates'"),
        ("--sweep-streams", "3", "unknown argument '--sweep-streams'"),
        ("--capacity-rates", "3", "unknown argument '--capacity-rates'"),
        ("--capacity-precision", "0.1", "unknown argument '--capacity-precision'"),
    ],
)
def test_surveys_cannot_be_compared_in_turns_and_are_not_offered(
    word: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["versus", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "sweep" not in shown
    assert "capacity" not in shown
    assert main(["versus", "http://127.0.0.1:1", "http://127.0.0.1:1", word, value]) == 2
    assert says in capsys.readouterr().err


def test_files_are_compared_figure_by_figure(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    enough = ("--requests", "60")  # for an interval of the median, whatever a stall of the machine does to some of them
    run(url, before, *enough)
    run(url, after, *enough, "--body", SLOWER)
    capsys.readouterr()
    assert main(["compare", str(before), str(after)]) == 1
    table = capsys.readouterr().out
    assert "worse" in next(line for line in table.splitlines() if "tpot_s.p50" in line)
    assert "different requests: extra" in table
    assert main(["compare", str(after), str(before), "--json"]) == 0
    rows = {row["figure"]: row["verdict"] for row in orjson.loads(capsys.readouterr().out)["rows"]}
    assert rows["tpot_s.p50"] == "better"


def test_a_file_of_another_kind_is_named(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert main(["compare", str(other), str(other)]) == 2
    assert f"{other} is no result of `forgegate bench run`" in capsys.readouterr().err
