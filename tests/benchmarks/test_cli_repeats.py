"""How often each load is measured where nobody says."""

import json
import re
import shlex

import pytest

from benchmarks.campaign import Plan
from benchmarks.capacity import Search
from benchmarks.cli import _parser, main
from benchmarks.commands.load_options import repeats_of
from benchmarks.commands.measure import _described, _expected
from benchmarks.commands.profile_options import Profile
from benchmarks.progress import span
from benchmarks.statistics.settled import MIN_REPEATS
from benchmarks.statistics.slo import parse_slo
from benchmarks.sweep import Sweep
from benchmarks.workload import Workload


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--profile sweep --slo interactive",
        "--concurrency 1,8",
        "--rate 2,4 --duration 60",
        "--ramp linear:1-5 --duration 60",
        "--trace x --trace-format azure",
    ],
)
def test_what_is_to_be_settled_is_measured_three_times(words: str):
    options = _parser().parse_args(["run", *words.split()])
    assert repeats_of(options) == MIN_REPEATS == 3
    assert repeats_of(_parser().parse_args(["run", *words.split(), "--repeats", "1"])) == 1


@pytest.mark.parametrize(
    "words",
    ["--profile capacity --slo interactive", "--requests-from x", "--requests-from x --concurrency 2", "--save-requests x --concurrency 2"],
)  # fmt: skip
def test_what_a_repeat_would_only_answer_from_a_cache_or_says_itself_how_often_is_not(words: str):
    assert repeats_of(_parser().parse_args(["run", *words.split()])) == 1
    assert repeats_of(_parser().parse_args(["run", *words.split(), "--repeats", "5"])) == 5


def test_a_run_that_says_nothing_of_it_has_three_and_says_so(url: str, capsys: pytest.CaptureFixture[str]):
    base = ["run", "--no-ceiling", "--url", url, "--model", "alpha", "--output-tokens", "5", "--warmup", "1", "--json"]
    assert main([*base, "--concurrency", "1,2", "--requests", "8"]) in (0, 1)
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["plan"]["repeats"] == 3
    assert [[run["repeat"] for run in level["runs"]] for level in result["levels"]] == [[0, 1, 2]] * 2
    assert printed.err.splitlines()[0] == "closed: 1 stream, 2 streams, all 3 times"
    assert "[6/6] " in printed.err
    assert main([*base, "--concurrency", "1", "--requests", "8", "--repeats", "1"]) in (0, 1)
    assert capsys.readouterr().err.splitlines()[0] == "closed: 1 stream"


def test_a_sweep_says_how_often_and_for_how_long_it_measures():
    said = _described(Profile.SWEEP, Sweep(), None, 3)
    assert said == "sweep: one request at a time, 64 at once, then 5 rates between, 40 s each, all 3 times"
    expected, num_runs = _expected(Plan(Workload("m"), (64,), repeats=3), Profile.SWEEP, Sweep(), None)
    assert (span(expected(0.0)[0]), num_runs) == ("10 min", 21)
    under_slo = _described(Profile.SWEEP, Sweep(), Search(parse_slo("ttft_p99<500ms")), 3)
    assert under_slo.startswith(f"{said}, then up to 8 rates until it is known where ttft_p99<500ms holds")
    assert "times" not in _described(Profile.SWEEP, Sweep(), None, 1)


def test_the_help_says_how_often_and_how_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "400")  # no option is broken at its hyphen
    assert main(["run", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "default 3; 1 with --profile capacity, --requests-from or --save-requests" in shown
    assert "some ten minutes" in shown
    (quick,) = re.findall(r"`(--repeats 1)` is a quick look", shown)
    assert repeats_of(_parser().parse_args(["run", *shlex.split(quick)])) == 1
