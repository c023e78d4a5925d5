"""Sweeps, capacities and service level objectives from the command line, against a mock over real sockets."""

import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import beyond, validity
from benchmarks.cli import _parser, main
from benchmarks.commands.profile_options import Profile, profile_of
from benchmarks.metrics import VERSION, definitions
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.sweep import Sweep
from tests.benchmarks.conftest import serving

SHORT = ("--duration", "0.5", "--sweep-rates", "2", "--sweep-streams", "4", "--requests", "8")
ONCE = ("--repeats", "1")
"""How repeats differ is not asked here; the search for a capacity takes no such option."""
Run = Callable[..., dict[str, Any]]
SERVICE_S, SLOTS = 0.02, 2
CARRIES = SLOTS / SERVICE_S


@pytest.fixture(scope="module")
def narrow() -> Iterator[str]:
    """A server that carries less than 100 requests per second, lets 16 wait and turns the rest away."""
    behaviour = Behaviour(ttft_ms=1e3 * SERVICE_S, itl_ms=1)
    with serving(MockEngine(behaviour, num_slots=SLOTS, max_waiting=16)) as url:
        yield url


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine requests are sent late, which is not asked here; the mock's work would count as the client's."""
    monkeypatch.setattr(beyond, "ACHIEVED_LIMIT", 0.0)
    monkeypatch.setattr(validity, "CLIENT_BUSY_LIMIT", 10.0)


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """The result of a run that was measured; whether it is valid is another question on a busy machine."""

    def run(*words: str, at: str = url) -> dict[str, Any]:
        model = "alpha" if at == url else "mock"
        base = ["run", "--no-ceiling", "--url", at, "--model", model, "--json", "--output-tokens", "5", "--warmup", "1"]
        code = main([*base, *(() if "capacity" in words else ONCE), *words])
        printed = capsys.readouterr()
        assert code in (0, 1), printed.err
        return {**json.loads(printed.out), "err": printed.err, "code": code}

    return run


def test_without_a_load_it_is_a_sweep_that_says_how_long_it_takes(run: Run, narrow: str):
    result = run(*SHORT, at=narrow)
    assert result["profile"] == "sweep"
    assert [level["concurrency"] for level in result["levels"]][:2] == [1, 4]
    rates = [level["rate"] for level in (*result["levels"], *result["beyond"]) if "rate" in level]
    assert len(rates) == 2
    said = result["err"].splitlines()
    assert said[0] == "sweep: one request at a time, 4 at once, then 2 rates between, 1 s each, at least 1 s"
    assert said[1].startswith("about ")
    assert said[2].startswith("[1/4] 1 stream, repeat 0: ")


@pytest.mark.usefixtures("patient")
def test_a_sweep_stops_where_a_server_turns_requests_away(run: Run, narrow: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Sweep, "rates", lambda *_: (5 * CARRIES, 9 * CARRIES))
    result = run(*SHORT, at=narrow)
    assert result["stopped"]["load"] == "500 req/s"
    assert result["stopped"]["cause"] == "rejected"
    assert re.search(r"requests failed \(\d+ http_status 429\)", result["stopped"]["because"])
    assert [level["label"] for level in result["beyond"]] == ["500 req/s"]
    assert [level["label"] for level in result["levels"]] == ["1 stream", "4 streams"]
    assert not any("500 req/s" in fault for fault in result["faults"])


def test_a_sweep_whose_requests_fail_stops_and_is_void(run: Run, monkeypatch: pytest.MonkeyPatch):
    """A server that is broken has shown nothing about what it carries."""
    monkeypatch.setattr(Sweep, "rates", lambda *_: (40.0, 80.0))
    result = run(*SHORT, "--warmup", "0", "--body", '{"mock": {"error_rate": 0.5}}')
    assert (result["is_valid"], result["code"], result["beyond"]) == (False, 1, [])
    assert "stopped" not in result
    assert [level["label"] for level in result["levels"]] == ["1 stream", "4 streams", "40 req/s"]
    assert "the sweep stopped here: " in result["levels"][-1]["remarks"][-1]


@pytest.mark.usefixtures("patient")
def test_every_form_shows_a_sweep(run: Run, narrow: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(Sweep, "rates", lambda *_: (5 * CARRIES,))
    outs = {suffix: tmp_path / f"sweep.{suffix}" for suffix in ("html", "md", "csv")}
    words = (word for out in outs.values() for word in ("--out", str(out)))
    result = run(*SHORT, "--slo", "ttft:1000", "--gpus", "2", *words, at=narrow)
    page, text = outs["html"].read_text("utf-8"), outs["md"].read_text("utf-8")
    for shown in (page, text):
        assert "the sweep stopped at 500 req/s, more than the server carries" in shown
        assert "too much" in shown
        assert "not settled" in shown
        assert "goodput req/s" in shown
    assert definitions().splitlines()[0] in page
    assert "requests/s answered" in page
    assert "tok/s per GPU" in page
    with outs["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["load"] for row in rows] == ["1", "4", "500"]
    assert [bool(row["too_much"]) for row in rows] == [False, False, True]
    assert {row["is_settled"] for row in rows} == {"false"}
    assert float(rows[1]["goodput_requests_per_s"]) == result["levels"][1]["slo"]["requests_per_s"]
    assert result["levels"][0]["pooled"]["output_tps_per_gpu"] == result["levels"][0]["pooled"]["output_tps"] / 2


def test_the_capacity_is_not_above_what_the_server_carries(run: Run, narrow: str):
    words = ("--profile", "capacity", "--slo", "ttft_p90<150ms", "--sweep-streams", "4", "--requests", "8")
    result = run(*words, "--duration", "1", "--capacity-rates", "3", "--capacity-precision", "0.3", at=narrow)
    assert result["profile"] == "capacity"
    assert result["is_slo_met"] is (result["capacity"]["rate"] is not None)
    assert (result["capacity"]["rate"] or 0.0) < 1.2 * CARRIES
    assert result["slo"]["objectives"] == [{"metric": "ttft", "limit_s": 0.15, "percentile": 0.9}]
    tried = [level["label"] for level in (*result["levels"][2:], *result["beyond"])]
    assert 1 <= len(tried) <= 3
    assert (
        "until it is known where ttft_p90<150ms holds, each for at least 1 s, to pass for 57 requests or more"
        in result["err"]
    )
    assert re.search(
        r"^capacity: a rate near [\d.]+ requests/s takes \d+ s to \d+ s, a lower one", result["err"], re.MULTILINE
    )


def test_a_sweep_under_an_slo_ends_with_the_capacity(run: Run):
    result = run(*SHORT, "--slo", "ttft_p50<10s", "--capacity-rates", "1")
    assert result["capacity"]["sentence"].startswith("capacity@SLO: ")
    assert result["is_slo_met"] is (result["capacity"]["rate"] is not None)
    assert all(level["slo"]["attainment"] == 1 for level in result["levels"])


def test_a_promise_that_is_never_kept_is_a_negative_verdict(url: str, capsys: pytest.CaptureFixture[str]):
    base = ["run", "--no-ceiling", "--url", url, "--model", "alpha", "--output-tokens", "5", "--slo", "ttft_p50<1us"]
    base += ONCE
    assert main([*base, *SHORT]) == 1
    assert "capacity@SLO: none; missed with one request at a time (ttft_p50<0.001ms by 8 of 8)" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert main([*base, "--concurrency", "1"]) == 1
    table = capsys.readouterr().out
    assert "failed with 99% confidence: ttft_p50<0.001ms held by 0.00% of 8" in table


def test_named_rates_are_held_against_it_too(run: Run):
    result = run("--rate", "40", "--requests", "8", "--slo", "interactive")
    (level,) = result["levels"]
    assert level["slo"]["answer"] in ("undecided", "failed")
    assert result["capacity"]["rate"] is None
    assert result["code"] == 1
    assert run("--concurrency", "2", "--requests", "8", "--slo", "e2e:60000")["is_slo_met"] is None


def test_a_ramp_has_no_capacity(run: Run):
    """Its mean rate was not held for a moment."""
    result = run("--ramp", "linear:20-60", "--requests", "20", "--slo", "ttft_p50<10s")
    assert "capacity" not in result
    assert result["levels"][0]["slo"]["answer"] == "passed"
    assert result["is_slo_met"] is True


def test_definitions_are_those_of_the_code(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--help-metrics"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Definitions, version {VERSION}\n")
    assert "capacity@SLO     the highest offered rate that passed" in printed


def test_profiles_by_name(run: Run):
    closed = run("--profile", "closed", "--concurrency", "2", "--requests", "8")
    assert (closed["profile"], closed["levels"][0]["concurrency"]) == ("closed", 2)
    opened = run("--profile", "open", "--rate", "50", "--requests", "8")
    assert (opened["profile"], opened["levels"][0]["rate"]) == ("open", 50)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--profile closed --rate 5 --duration 1", "--rate and --profile closed are different loads"),
        ("--profile open --concurrency 5", "--concurrency and --profile open are different loads"),
        ("--profile open", "--profile open needs its load: --rate, --ramp or --trace"),
        ("--profile sweep --concurrency 5", "--concurrency and --profile sweep are different loads"),
        ("--profile sweep --requests-from x", "--requests-from and --profile sweep are different loads"),
        ("--profile capacity", "--profile capacity needs --slo"),
        ("--profile capacity --slo ttft:500", "needs a share for every limit"),
        ("--profile capacity --slo interactive --repeats 3", "leave --repeats out"),
        ("--profile capacity --slo interactive --sweep-rates 3", "--sweep-rates goes with --profile sweep"),
        ("--concurrency 1 --sweep-streams 3", "--sweep-streams goes with --profile sweep or capacity"),
        ("--capacity-rates 3", "--capacity-rates goes with --profile capacity, or a sweep with --slo"),
        ("--capacity-precision 0.1 --rate 3 --duration 1", "--capacity-precision goes with"),
        ("--capacity-precision 2", "between 0.001 and 0.5"),
        ("--sweep-streams 1", "at least 2"),
        ("--gpus 0", "at least 1"),
        ("--slo fast", "is no service level objective"),
        ("--slo interactiv", "did you mean 'interactive'"),
        ("--slo ttft_p99<500", "has no unit"),
        ("--slo ttfb_p99<500ms", "one of ttft, tpot, itl, e2e, queue"),
        ("--slo tpot_p99<30ms --output-tokens 1", "answers have one token, so there is no tpot"),
        ("--slo itl_p99<30ms --embeddings", "embeddings come in one piece, so there is no itl"),
        ("--think-time 1", "--think-time goes with a closed loop or with --turns"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(words: str, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--url", "http://127.0.0.1:9", *words.split()]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 2


def test_the_examples_of_the_help_are_commands(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--help"]) == 0
    shown = re.findall(r"^  forgegate bench (run .+)$", capsys.readouterr().out, re.MULTILINE)
    kinds = [profile_of(_parser().parse_args(shlex.split(command))) for command in shown]
    assert set(kinds) == {Profile.SWEEP, Profile.CLOSED, Profile.OPEN}
