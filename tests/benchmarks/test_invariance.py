from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from benchmarks import invariance
from benchmarks.client import Client, Target
from benchmarks.invariance_compare import Comparison, compare, epsilon_of, margin_changes
from benchmarks.invariance_modes import MODES, Asking, Mode, Run, priming, run_mode
from benchmarks.invariance_record import (
    Answer,
    InvarianceError,
    Prompt,
    PromptSet,
    answer_of,
    first_difference,
    read_answers,
    read_prompts,
)
from benchmarks.invariance_report import invariance_document, markdown
from benchmarks.mock_server import MockEngine
from tests.benchmarks.conftest import FAST

END = "<|im_end|>"


def answer(
    tokens: str, margins: Sequence[float] = (), end: int = 99, text: str | None = None, cached: int = 0
) -> Answer:
    words = tuple(tokens.split())
    return Answer(words, tuple(margins) or (1.0,) * len(words), end, text, cached)


def prompts(num: int) -> list[Prompt]:
    return [Prompt(index, "facts", tuple(range(300, 310 + index))) for index in range(num)]


def body(tops: Sequence[dict[str, float]], drawn: str, text: str = "x", **usage: Any) -> bytes:
    """A completion whose tokens are the words of `drawn`."""
    tokens = drawn.split()
    values = [top[token] for token, top in zip(tokens, tops, strict=True)]
    logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": list(tops)}
    return orjson.dumps({"choices": [{"text": text, "logprobs": logprobs}], "usage": usage})


# ---------------------------------------------------------------------- what is read


def test_margin_leaves_end_tokens_out_and_the_end_is_where_they_lead():
    tops = [{"a": -0.1, "b": -2.6}, {"a": -1.0, "b": -1.5, END: -0.9}, {END: -0.01, "a": -5.0, "c": -5.25}]
    found = answer_of(body(tops, "a a a", prompt_tokens_details={"cached_tokens": 7}), 0, 3, [END])
    assert found.margins == pytest.approx((2.5, 0.5, 0.25))
    assert (found.tokens, found.end, found.text, found.num_cached) == (("a", "a", "a"), 1, "x", 7)


def test_an_answer_that_never_would_have_ended():
    assert answer_of(body([{"a": -0.1, END: -0.5, "b": -1.0}], "a"), 0, 1, [END]).end == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "log-probabilities"),
        (b'{"choices": [{"text": "", "logprobs": null}], "usage": {}}', "log-probabilities"),
        (body([{"a": -0.1, END: -3.0}], "a"), "'a' came without an alternative"),
        (body([{"a": -0.1, "b": -3.0}], "a"), "1 tokens instead of 2"),
    ],
)
def test_what_is_no_answer_is_said(data: bytes, reason: str):
    with pytest.raises(InvarianceError, match=reason):
        answer_of(data, 0, 2, [END])


def test_files_that_hold_something_else_are_named(tmp_path: Path):
    path = tmp_path / "x.json"
    for content in ("[]", "{}", '{"prompts": [{"ids": 1}]}'):
        path.write_text(content)
        with pytest.raises(InvarianceError, match=r"x\.json holds no prompts"):
            read_prompts(path)
    path.write_text('[{"tokens": ["a"]}]')
    with pytest.raises(InvarianceError, match=r"x\.json holds no answers"):
        read_answers(path)


# ---------------------------------------------------------------------- what is compared


def test_first_difference():
    assert first_difference(answer("a b c"), answer("a b c")) is None
    assert first_difference(answer("a b c"), answer("a x c")) == 1
    # Parts of characters read alike: the texts tell, where both are known.
    part, same, other = (answer("a \ufffd \ufffd", text=text) for text in ("a한", "a한", "a둘"))
    assert first_difference(part, same) is None
    assert first_difference(part, other) == 1
    assert first_difference(part, answer("a \ufffd \ufffd")) is None


def test_margin_changes_end_with_the_first_difference_where_both_margins_add_up():
    one, other = answer("a b c d", [1.0, 0.5, 0.02, 9.0]), answer("a b x d", [1.25, 0.5, 0.03, 1.0])
    assert margin_changes(one, other) == pytest.approx([0.25, 0.0, 0.05])
    assert margin_changes(one, one) == [0.0] * 4


def test_epsilon_is_four_times_the_quantile_and_bounded():
    changes = [index / 1e6 for index in range(1001)]  # the 99.9th percentile is exactly the last but one
    assert epsilon_of(changes) == pytest.approx(4 * 999e-6)
    assert epsilon_of([0.05]) == 0.1
    assert epsilon_of([0.0]) == 0.0


def compared(min_share: float = 0.5) -> Comparison:
    """Four prompts, two of which differ, one above epsilon (0.04); a fifth one for epsilon."""
    alone = [answer("a b", [3.0, 0.03], end=1), answer("a b", [0.05, 2.0]), *[answer("a b")] * 2, answer("a b", [1, 1])]
    other = [answer("a x", [3.0, 0.01]), answer("y b", [0.2, 2.0]), *[answer("a b")] * 2, answer("a b", [1, 1.01])]
    return compare("batch", prompts(5), alone, other, 4, min_share)


def test_comparison_lists_every_mismatch_and_excuses_those_within_epsilon():
    found = compared()
    assert (found.num_identical, found.share, found.num_identical_to_end) == (2, 0.5, 3)
    assert found.epsilon == pytest.approx(0.04, rel=0.01)
    first, second = found.mismatches
    assert (first.prompt, first.position, first.token, first.other_token, first.is_beyond_end) == (0, 1, "b", "x", True)
    assert (second.prompt, second.margin, second.other_margin, second.is_beyond_end) == (1, 0.05, 0.2, False)
    assert found.above == (second,)
    assert len(found.faults) == 1
    assert found.faults[0] == "batch: differences at a margin above epsilon (0.0400): 1"


def test_too_few_identical_answers_are_a_fault():
    assert compared(0.51).faults[0] == "batch: 50.0% wholly identical, 51% are wanted"


def test_epsilon_needs_prompts_of_its_own():
    with pytest.raises(InvarianceError, match="other prompts"):
        compare("batch", prompts(1), [answer("a")], [answer("a")], 1, 0.99)


# ---------------------------------------------------------------------- how it is asked


def test_priming_asks_the_earlier_turn_or_shares_at_least_half():
    later = Prompt(0, "recall", tuple(range(300, 340)), turn=12)
    assert priming(later, [], Random(1)) == (list(range(300, 312)), True)
    first, other = Prompt(1, "facts", tuple(range(300, 321))), Prompt(2, "facts", tuple(range(900, 960)))
    for seed in range(50):
        ids, is_turn = priming(first, [other], Random(seed))
        shared = next((at for at, token in enumerate(ids) if token != 300 + at), len(ids))
        assert not is_turn
        assert 11 <= shared <= 20
        assert len(ids) == 60


def test_each_mode_has_the_engine_that_it_needs():
    flags = {mode.name: mode.engine_flags(500) for mode in MODES}
    assert flags["alone"] == flags["batch"] == flags["copied"] == ("--prefix-cache", "false")
    assert flags["prefix"] == flags["prefix-batch"] == ("--prefix-cache", "true")
    assert flags["preempted"] == ("--prefix-cache", "false", "--n-ctx", "500")
    assert [mode.num_streams(32) for mode in MODES] == [1, 32, 16, 1, 16, 32]


def run_of(name: str, cached: int = 0, num_preempted: int | None = None) -> Run:
    mode = next(mode for mode in MODES if mode.name == name)
    return Run(mode, (answer("a", cached=cached),) * 10, (20,) * 10, 1.0, 0, num_preempted)


def test_a_run_that_was_not_what_its_mode_says_is_a_fault():
    assert [run_of(name).faults for name in ("alone", "batch", "copied")] == [[], [], []]
    assert run_of("alone", cached=3).faults == [
        "alone: 15.0% of the prompts' tokens were reused: switch the prefix cache off"
    ]
    assert run_of("prefix", cached=10).faults == []
    assert run_of("prefix", cached=9).faults == ["prefix: only 45% of the prompts' tokens were reused"]
    assert run_of("preempted", num_preempted=3).faults == []
    assert run_of("preempted").faults == run_of("preempted", num_preempted=0).faults != []


async def test_a_server_without_log_probabilities_is_refused_in_one_line():
    async with MockEngine(FAST) as engine:
        client = Client(Target.from_url(engine.url), timeout_s=5)
        try:
            with pytest.raises(InvarianceError, match="no log-probabilities"):
                await run_mode(client, Mode("x", "", is_crowded=True), PromptSet(tuple(prompts(3)), 4096, {}), ASKING)
        finally:
            client.close()


ASKING = Asking("mock", 10, 4, 0)


# ---------------------------------------------------------------------- what is written


def test_the_report_lists_every_mismatch_and_says_what_was_missed():
    plan = {
        "num_prompts": 4, "num_calibration": 1, "num_tokens": 2, "num_places": 32, "seed": 0, "engine_flags": "",
        "batch_invariant": False,
    }  # fmt: skip
    model = {"name": "m", "file": "m.gguf", "sha256": "ab", "source_digest": None, "backend": None, "threads": None}
    result = invariance_document(
        ["python"],
        plan=plan,
        model=model,
        versions={"torch": "2"},
        runs=[run_of("alone"), run_of("prefix-batch", cached=5)],
        comparisons=[compared(), compare("exact", prompts(3), [answer("a b")] * 3, [answer("a b")] * 3, 2, 0.99)],
        num_everywhere=2,
    )
    json.dumps(result)
    assert not result["is_met"]
    text = markdown(result)
    assert "All bounds: **MISSED**" in text
    assert "| batch | 2 of 4 (50.0%) | 50% | 3 | 0.0050 / 0.0100 / 0.0100 | 0.0400 | 1 |" in text
    assert "| exact | 2 of 2 (100.0%) | 99% | 2 | 0 / 0 / 0 | 0 | 0 |" in text
    head, rule = text.partition("## Every mismatch\n\n")[2].splitlines()[:2]
    assert head.endswith("| margin alone | margin there | past its end |")
    assert rule.count("|") == head.count("|") == 9
    assert "| batch | 0 (facts) | 1 | `b` | `x` | 0.0300 | 0.0100 | yes |" in text
    assert "| batch | 1 (facts) | 0 | `a` | `y` | 0.0500 | 0.2000 | no |" in text
    assert "- prefix-batch: only 25% of the prompts' tokens were reused" in text
    assert "- **prefix-batch**: the same, 16 at any time (25% of the prompts' tokens were reused)." in text
    assert "Without batch_invariant" in text


def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = ["--out", str(tmp_path / "r.json")]
    for words, reason in (
        (["--modes", "batsch"], "there is no mode 'batsch' with --batch-invariant; one of batch, copied"),
        (["--modes", "prefix", "--url", "http://127.0.0.1:1"], "there is no mode 'prefix' with --url"),
        (["--modes", "preempted"], "there is no mode 'preempted' with --batch-invariant"),
        (["--url", "http://127.0.0.1:1", "--engine-flags=--n-ctx 1"], "--url: that server has its model and flags"),
        (["--weights", str(tmp_path / "none")], "--weights: no such folder"),
        (["--model", str(tmp_path / "none.gguf")], "--model: no such file"),
    ):
        assert invariance.main([*words, *out]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_weights_without_a_tokenizer_are_an_environment_that_cannot(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert invariance.main(["--weights", str(tmp_path), "--out", str(tmp_path / "r.json")]) == 3
    assert capsys.readouterr().err.startswith("error: benchmarks.invariance_reference: ")


@pytest.mark.engine
@pytest.mark.torch
@pytest.mark.slow
def test_the_demo_model_has_the_same_bits_alone_in_a_batch_and_with_a_prefix(tmp_path: Path):
    out = tmp_path / "invariance.json"
    # Of these prompts no answer has a margin below 0.008, so that no rounding decides between F16 and fp32.
    size = [
        "--prompts",
        "16",
        "--calibration",
        "8",
        "--tokens",
        "32",
        "--streams",
        "8",
        "--seed",
        "21",
        "--threads",
        "1",
    ]
    assert invariance.main([*size, "--modes", "batch,prefix", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    batch, prefix, transformers = result["comparisons"]
    assert [found["name"] for found in result["comparisons"]] == ["batch", "prefix", "transformers"]
    assert batch["margin_change"]["max"] == prefix["margin_change"]["max"] == 0
    # fp32 and F16 cannot agree to the bit: were the change zero, nothing had been compared.
    assert transformers["num_identical"] == 16
    assert 0 < transformers["margin_change"]["p50"] < transformers["epsilon"] <= 0.1
    assert (
        out.with_suffix(".md").read_text().startswith("# Batch invariance: the llama.cpp engine with batch_invariant")
    )
