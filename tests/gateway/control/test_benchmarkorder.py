"""What may be asked for; what passes here passes the command's own checks, too."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli
from benchmarks.commands import load_options, workload_options
from benchmarks.statistics.slo import parse_slo
from gateway import errors
from gateway.control.benchmarkorder import BenchmarkBody, command, load_words, require_sound

OUT = Path("/nowhere/result.json")
SOUND: list[dict[str, Any]] = [
    {},
    {"concurrency": (4,), "requests": 9, "repeats": 3, "seed": 7, "ceiling": False},
    {"concurrency": (1, 64), "input_tokens": "64-256", "output_tokens": "lognormal:550,0.8"},
    {"rate": (2.0, 4.5), "duration_s": 30.0},
    {"rate": (2.0,), "requests": 50, "endpoint": "completions"},
    {"concurrency": (2,), "endpoint": "embeddings", "input_tokens": 16},
    {"input_tokens": 1_000_000, "concurrency": (1,), "slo": "ttft_p99<500ms, tpot_p99.9<1.5s"},
    {"slo": "ttft:500,e2el:30.5"},
    {"slo": "interactive", "rate": (1.0,), "duration_s": 5.0},
]


def parsed(body: BenchmarkBody) -> argparse.Namespace:
    """As the command understands it."""
    words = command(body, "http://127.0.0.1:1", (OUT,))
    assert words[1:5] == ("-P", "-m", "benchmarks.cli", "run")
    options = cli._parser().parse_args(words[4:])
    assert isinstance(options, argparse.Namespace)
    load_options.loads_of(options)
    workload_options.workload_of(options, options.model)
    return options


@pytest.mark.parametrize("changes", SOUND)
def test_what_is_sound_the_command_takes(changes: dict[str, Any]) -> None:
    body = replace(BenchmarkBody("demo"), **changes)
    require_sound(body)
    options = parsed(body)
    assert (options.model, options.endpoint, options.repeats) == (body.model, body.endpoint, body.repeats)
    assert (options.seed, options.requests, options.ceiling) == (body.seed, body.requests, body.ceiling)
    assert (options.duration, options.rate or ()) == (body.duration_s, body.rate)
    assert options.out == [OUT]
    assert options.slo == (body.slo or None)
    if body.slo:
        parse_slo(body.slo)


def test_the_loads_are_those_asked_for() -> None:
    assert parsed(BenchmarkBody("demo")).concurrency == (1, 8, 32)
    assert load_words(BenchmarkBody("demo")) == "1, 8, 32 streams"
    assert load_words(BenchmarkBody("demo", concurrency=(1,))) == "1 stream"
    assert load_words(BenchmarkBody("demo", rate=(2.0, 4.5))) == "2, 4.5 requests/s"


def test_numbers_keep_all_of_their_digits() -> None:
    options = parsed(BenchmarkBody("demo", rate=(1000.001, 1000.002, 3.0), duration_s=1234.5678))
    assert options.rate == (1000.001, 1000.002, 3.0)
    assert options.duration == 1234.5678


@pytest.mark.parametrize(
    ("changes", "longest_s"),
    [
        ({}, 5400.0),
        ({"repeats": 1}, 1800.0),
        ({"repeats": 5}, 7200.0),
        ({"repeats": 5, "limit_s": 60.0}, 60.0),
    ],
)
def test_what_fits_once_fits_as_often_as_it_is_repeated(changes: dict[str, Any], longest_s: float) -> None:
    assert replace(BenchmarkBody("demo"), **changes).longest_s == longest_s
    for repeats in (1, 2, 3):
        require_sound(BenchmarkBody("demo", rate=(2.0, 3.0), duration_s=890.0, repeats=repeats))


def test_no_chat_of_a_benchmark_is_kept() -> None:
    assert parsed(BenchmarkBody("demo")).body == '{"store": false}'
    assert parsed(BenchmarkBody("demo", endpoint="completions")).body == "{}"


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"concurrency": (0,)}, "concurrency", "must be 1 to 4,096, got 0"),
        ({"concurrency": (2, 2)}, "concurrency", "names a load twice"),
        ({"concurrency": tuple(range(1, 10))}, "concurrency", "9 loads: 8 at most"),
        ({"concurrency": (2,), "rate": (1.0,)}, "rate", "different loads"),
        ({"concurrency": (2,), "duration_s": 3.0}, "duration_s", "goes with rate"),
        ({"rate": (0.0,), "duration_s": 3.0}, "rate", "must be 0.01 to 10,000, got 0"),
        ({"rate": (math.nan,), "duration_s": 3.0}, "rate", "got nan"),
        ({"rate": (2.0,)}, "duration_s", "needs duration_s or requests"),
        ({"rate": (2.0,), "duration_s": 3.0, "requests": 5}, "duration_s", "leave one out"),
        ({"rate": (2.0,), "duration_s": 3601.0}, "duration_s", "must be 1 to 3,600"),
        ({"rate": (5000.0,), "duration_s": 60.0}, "rate", "300,000 requests at 5000/s: 100,000 at most"),
        ({"rate": (2.0, 3.0), "duration_s": 1000.0}, "limit_s", "the loads alone take 6,000 s"),
        ({"rate": (2.0,), "requests": 8000}, "limit_s", "the loads alone take 12,000 s"),
        ({"requests": 0}, "requests", "must be 1 to 100,000"),
        ({"repeats": 21}, "repeats", "must be 1 to 20"),
        ({"slo": "ttft_p99<500"}, "slo", "'ttft_p99<500' is no service level objective: write ttft_p99<500ms"),
        ({"slo": "ttft_p99<500ms,"}, "slo", "no service level objective"),
        ({"slo": "--help"}, "slo", "no service level objective"),
        ({"slo": "ttft_p99<500ms," * 20}, "slo", "300 characters: 200 at most"),
        ({"requests": 100_000, "input_tokens": 1_000_000}, "requests", "100,000,000,000 tokens of prompts: 50,000,000 at most"),
        ({"input_tokens": "9-1000000"}, "input_tokens", "128 requests of up to 1,000,000 tokens"),
        ({"rate": (1000.0,), "duration_s": 90.0, "input_tokens": "lognormal:8000,1"}, "input_tokens", "90,000 requests of up to 8,000"),
        ({"seed": -1}, "seed", "got -1"),
        ({"limit_s": math.inf}, "limit_s", "must be 1 to 7,200, got inf"),
        ({"input_tokens": 0}, "input_tokens", "0 is no length"),
        ({"input_tokens": "9-3"}, "input_tokens", "'9-3' is no length"),
        ({"output_tokens": "lognormal:0.5,1"}, "output_tokens", "write a number of tokens (128)"),
        ({"output_tokens": "--seed"}, "output_tokens", "'--seed' is no length"),
        ({"output_tokens": "2000000"}, "output_tokens", "no length"),
    ],
)  # fmt: skip
def test_what_is_not_is_refused_by_its_field(changes: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        require_sound(replace(BenchmarkBody("demo"), **changes))
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert words in caught.value.message
