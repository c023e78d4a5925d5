"""From a request's fields to sampling parameters."""

from __future__ import annotations

import orjson
import pytest

from backends.llamacpp.api.completions import CompletionRequest
from backends.llamacpp.api.fields import parse
from backends.llamacpp.api.params import Defaults, sampling_params
from backends.llamacpp.sampling import SamplingParams

RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's LLAMA_DEFAULT_SEED: draws differently every time."""


def params(**fields: object) -> SamplingParams:
    request = parse(orjson.dumps({"prompt": "x", **fields}), CompletionRequest)
    return sampling_params(request, max_tokens=4, n_vocab=100, defaults=Defaults(temperature=0.7, top_k=5))


@pytest.mark.parametrize("seed", [-1, 0, RANDOM_SEED, RANDOM_SEED - 1, 2**40, -(2**63), 2**63 - 1])
def test_every_seed_is_one_that_repeats(seed: int) -> None:
    assert params(seed=seed).seed == params(seed=seed).seed
    assert 0 <= params(seed=seed).seed < RANDOM_SEED


def test_requests_without_a_seed_get_their_own() -> None:
    assert len({params().seed for _ in range(8)}) > 1


def test_a_temperature_that_would_overflow_is_greedy() -> None:
    assert params(temperature=1e-38).is_greedy
    assert params(temperature=0).is_greedy
    assert not params(temperature=0.01).is_greedy


def test_what_is_left_out_is_the_models_default() -> None:
    assert (params().temperature, params().top_k) == (0.7, 5)
    assert (params(temperature=0.2).temperature, params(top_k=-1).top_k) == (0.2, 0)
