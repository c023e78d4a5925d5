"""Open loops, traces, saved lists and what requests consist of, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.traffic.saved import read_requests

TRACE = """{"timestamp": 0, "input_length": 6, "output_length": 3, "hash_ids": [1]}
{"timestamp": 400, "input_length": 8, "output_length": 4, "hash_ids": [1]}
"""
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """The result of a run that must have been measured; whether it is valid is another question on a busy machine."""

    def run(*words: str) -> dict[str, Any]:
        base = ["run", "--no-ceiling", "--url", url, "--json", "--output-tokens", "5", "--warmup", "1"]
        code = main([*base, "--repeats", "1", *([] if "--requests-from" in words else ["--model", "alpha"]), *words])
        printed = capsys.readouterr()
        assert code in (0, 1), printed.err
        return json.loads(printed.out)  # type: ignore[no-any-return]

    return run


def pooled(result: dict[str, Any], level: int = 0) -> dict[str, Any]:
    return result["levels"][level]["pooled"]  # type: ignore[no-any-return]


def test_rates(run: Run):
    result = run("--rate", "40,80", "--requests", "20", "--arrivals", "gamma:2", "--processes", "2")
    assert result["plan"]["loop"] == "open"
    assert [load["rate"] for load in result["plan"]["loads"]] == [40, 80]
    assert {load["arrivals"] for load in result["plan"]["loads"]} == {"gamma:2"}
    assert [level["rate"] for level in result["levels"]] == [40, 80]
    assert [pooled(result, level)["num_ok"] for level in range(2)] == [20, 20]
    pacing = result["levels"][0]["runs"][0]["pacing_s"]
    assert pacing["num"] == 20
    assert pacing["min"] >= 0


def test_the_table_says_how_late_requests_were_sent(url: str, capsys: pytest.CaptureFixture[str]):
    main(
        [
            "run",
            "--no-ceiling",
            "--url",
            url,
            "--model",
            "alpha",
            "--rate",
            "50",
            "--requests",
            "10",
            "--output-tokens",
            "5",
            "--repeats",
            "1",
        ]
    )
    printed = capsys.readouterr().out
    assert "50 req/s: latencies count from when requests were due; sent " in printed
    assert "10/10" in printed


def test_ramp_over_a_duration(run: Run):
    result = run("--ramp", "linear:10-50", "--duration", "0.5", "--max-connections", "4")
    assert result["plan"]["loads"][0] == {
        "loop": "open", "profile": "linear", "first": 10, "last": 50, "length_s": 0.5, "arrivals": "poisson", "duration_s": 0.5,
    }  # fmt: skip
    assert 3 <= pooled(result)["num_requests"] <= 40


def test_trace(run: Run, tmp_path: Path):
    path = tmp_path / "mooncake.jsonl"
    path.write_text(TRACE, "utf-8")
    base = ["run", "--url", "http://127.0.0.1:9", "--trace", str(path), "--trace-format", "mooncake"]
    assert main([*base, "--input-tokens", "9"]) == 2
    result = run("--trace", str(path), "--trace-format", "mooncake", "--trace-scale", "0.5", "--output-tokens", "128")
    assert result["plan"]["loads"] == [{"loop": "open", "trace": "mooncake.jsonl", "requests": 2, "length_s": 0.2}]
    assert (pooled(result)["output_tokens"], pooled(result)["input_tokens"]) == (7, 14)


def test_a_saved_list_is_sent_again_byte_for_byte(run: Run, tmp_path: Path):
    first, again = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    run("--rate", "50", "--requests", "6", "--save-requests", str(first))
    run("--rate", "50", "--requests", "6", "--save-requests", str(again))
    assert first.read_bytes() == again.read_bytes()
    result = run("--requests-from", str(first), "--output-tokens", "128")
    assert (pooled(result)["num_ok"], pooled(result)["output_tokens"]) == (6, 30)
    assert result["plan"]["loads"][0]["saved"] == "one.jsonl"
    closed = run("--requests-from", str(first), "--output-tokens", "128", "--concurrency", "2")
    assert (closed["levels"][0]["concurrency"], pooled(closed)["num_ok"]) == (2, 6)


def test_what_requests_consist_of(run: Run, tmp_path: Path):
    path = tmp_path / "saved.jsonl"
    run(
        *(
            "--concurrency",
            "2",
            "--requests",
            "12",
            "--turns",
            "3",
            "--think-time",
            "exp:0.01",
            "--shared-prefix",
            "1x9",
        ),
        *(
            "--adapters",
            "alpha,beta",
            "--zipf",
            "0",
            "--base-share",
            "0.2",
            "--cold-share",
            "0.1",
            "--adapter-churn",
            "3",
        ),
        *("--cancel-rate", "0.5", "--cancel-after", "2", "--save-requests", str(path)),
    )
    requests = read_requests(path)
    assert [(request.session, request.turn) for request in requests[:4]] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert {request.adapter for request in requests} == {"alpha", "beta"}
    assert len({json.loads(request.body)["messages"][0]["content"] for request in requests if request.turn == 0}) == 1
    assert 0 < sum(request.cancel is not None for request in requests) < 12
    assert all(request.pause_s > 0 for request in requests)


@pytest.mark.parametrize("kind", ["json-schema", "tools"])
def test_structured_answers_end_where_the_model_ends_them(run: Run, tmp_path: Path, kind: str):
    given, saved = tmp_path / "given.json", tmp_path / "saved.jsonl"
    given.write_text('{"type": "object"}' if kind == "json-schema" else '[{"function": {"name": "f"}}]', "utf-8")
    run("--concurrency", "1", "--requests", "8", f"--{kind}", str(given), "--save-requests", str(saved))
    body = json.loads(read_requests(saved)[0].body)
    assert ("response_format" in body, "tools" in body) == (kind == "json-schema", kind == "tools")
    assert "ignore_eos" not in body
    run("--concurrency", "1", "--requests", "8", f"--{kind}", str(given), "--ignore-eos", "--save-requests", str(saved))
    assert json.loads(read_requests(saved)[0].body)["ignore_eos"] is True


def test_embeddings_and_demo_prompts(run: Run):
    result = run("--concurrency", "2", "--embeddings", "--input-tokens", "lognormal:20,0.5")
    assert (pooled(result)["num_ok"], pooled(result)["output_tokens"]) == (8, 0)
    result = run("--concurrency", "2", "--prompts", "demo")
    assert result["plan"]["workload"]["prompt_form"] == "file"
    assert pooled(result)["num_ok"] == 8


def test_sweep(run: Run):
    result = run("--profile", "sweep", "--sweep-rates", "2", "--duration", "0.3", "--requests", "30")
    levels = [level["concurrency"] for level in result["levels"]]
    assert levels[:2] == [1, 64]
    rates = [level["rate"] for level in [*result["levels"], *result["beyond"]] if "rate" in level]
    lowest, highest = (pooled(result, level)["request_rate"] for level in range(2))
    assert all(min(lowest, highest / 2) < rate < highest for rate in rates)
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--rate 5", "either --duration S or --requests N"),
        ("--rate 5 --duration 1 --requests 3", "either --duration S or --requests N"),
        ("--rate 5,5 --duration 1", "twice"),
        ("--rate 0 --duration 1", "at least"),
        ("--rate 5 --concurrency 2 --duration 1", "--concurrency and --rate are different loads"),
        ("--rate 5 --ramp linear:1-2 --duration 1", "--rate and --ramp are different loads"),
        ("--ramp linear --duration 1", "no ramp"),
        ("--rate 5 --duration 1 --arrivals even", "no kind of arrivals"),
        ("--rate 5 --duration 1 --think-time 1", "--think-time goes with a closed loop or with --turns"),
        ("--concurrency 1 --duration 5", "--duration goes with --rate, --ramp or --trace"),
        ("--concurrency 1 --arrivals poisson", "--arrivals goes with --rate or --ramp"),
        ("--concurrency 1 --max-connections 5", "--max-connections goes with"),
        ("--trace-format azure", "--trace-format goes with --trace"),
        ("--trace x", "--trace needs --trace-format: one of mooncake, azure, burstgpt"),
        ("--trace /nowhere --trace-format azure", "cannot read trace /nowhere"),
        ("--concurrency 1 --sweep-rates 3", "--sweep-rates goes with --profile sweep"),
        ("--profile swep", "did you mean 'sweep'"),
        ("--requests-from /nowhere", "cannot read requests from /nowhere"),
        ("--requests-from x --requests 3", "leave --requests out"),
        ("--requests-from x --input-tokens 3", "leave --input-tokens out"),
        ("--save-requests x", "saves one list"),
        ("--save-requests x --concurrency 1 --repeats 2", "saves one list"),
        ("--zipf 1", "--zipf says how --adapters are asked"),
        ("--adapters a=1,b=2 --zipf 1", "has already"),
        ("--adapters a,b=2", "names no adapters"),
        ("--base-share 2", "between 0 and 1"),
        ("--shared-prefix 5", "no shared prefix"),
        ("--think-time soon", "no think time"),
        ("--cancel-after 3", "--cancel-after goes with --cancel-rate"),
        ("--cancel-rate 0.5 --cancel-after soon", "no point to cancel at"),
        ("--tool-choice auto", "--tool-choice goes with --tools"),
        ("--json-schema /nowhere", "cannot read /nowhere"),
        ("--json-schema x --tools x", "not allowed with"),
        ("--embeddings --tools x", "fields of the chat endpoint"),
        ("--embeddings --turns 2", "need the chat endpoint"),
        ("--turns 0", "no length"),
        ("--input-tokens lognormal:5", "no length"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(words: str, says: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--url", "http://127.0.0.1:9", *words.split()]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 2
