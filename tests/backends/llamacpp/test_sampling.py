"""Arithmetic on logits, against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backends.llamacpp.sampling import LogitsAdjuster, SamplingParams, log_likelihoods, log_softmax, token_logprobs

PROMPT = np.array([1, 2, 2], dtype=np.int32)
END = np.array([7], dtype=np.int32)


def adjusted(params: SamplingParams, answer: tuple[int, ...] = ()) -> list[float]:
    adjuster = LogitsAdjuster(params, PROMPT, END)
    for token in answer:
        adjuster.accept(token)
    row = np.array([1.0, 2.0, -2.0, 4.0, 0.0, 0.5, 3.0, 9.0], dtype=np.float32)
    adjuster.apply(row, len(answer))
    return row.tolist()


def test_bias_is_added_and_minus_100_bans() -> None:
    row = adjusted(SamplingParams(max_tokens=9, logit_bias=((3, -5.0), (4, 2.5), (6, -1e4))))
    assert row[3:7] == [-1.0, 2.5, 0.5, pytest.approx(-9997)]


def test_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_negative() -> None:
    row = adjusted(SamplingParams(max_tokens=9, repetition_penalty=2.0), answer=(3,))
    assert row[:4] == [1.0, 1.0, -4.0, 2.0], "over prompt and answer; other tokens untouched"


def test_frequency_counts_and_presence_does_not_and_neither_sees_the_prompt() -> None:
    params = SamplingParams(max_tokens=9, frequency_penalty=0.5, presence_penalty=0.25)
    row = adjusted(params, answer=(3, 3, 5))
    assert row[1:3] == [2.0, -2.0]
    assert row[3] == pytest.approx(4.0 - 2 * 0.5 - 0.25)
    assert row[5] == pytest.approx(0.5 - 0.5 - 0.25)


def test_the_end_waits_for_min_tokens() -> None:
    params = SamplingParams(max_tokens=9, min_tokens=2, stop_token_ids=frozenset({6}))
    assert adjusted(params, answer=(0,))[6:] == [-math.inf, -math.inf]
    assert adjusted(params, answer=(0, 0))[6:] == [3.0, 9.0]


def test_ignore_eos_never_draws_the_end() -> None:
    params = SamplingParams(max_tokens=9, ignore_eos=True)
    assert adjusted(params, answer=(0, 0, 0))[7] == -math.inf


def test_nothing_to_adjust_is_known() -> None:
    assert not SamplingParams(max_tokens=1, temperature=0.3, top_p=0.5).changes_logits
    assert SamplingParams(max_tokens=1, min_tokens=1).changes_logits


def test_log_softmax_of_large_logits() -> None:
    rows = log_softmax(np.array([[1000.0, 1000.0], [0.0, -math.inf]], dtype=np.float32))
    assert rows[0].tolist() == pytest.approx([math.log(0.5)] * 2)
    assert rows[1].tolist() == [0.0, -math.inf]


def test_log_likelihoods_are_the_same_numbers() -> None:
    rows = np.random.default_rng(0).normal(0, 8, (20, 500)).astype(np.float32)
    tokens = np.arange(20, dtype=np.int32) * 7
    assert log_likelihoods(rows, tokens).tolist() == log_softmax(rows)[np.arange(20), tokens].tolist()


def test_token_logprobs_order() -> None:
    info = token_logprobs(np.log(np.array([0.1, 0.4, 0.1, 0.4], dtype=np.float32)), 2, 2)
    assert info.token == 2
    assert [token for token, _ in info.top] == [1, 3], "ties by token id"
    assert token_logprobs(np.log(np.array([0.5, 0.5], dtype=np.float32)), 0, 9).top[1][0] == 1
