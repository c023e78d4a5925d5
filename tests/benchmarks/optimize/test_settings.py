from typing import Any

import pytest

from benchmarks.engine_choice import LLAMACPP, VLLM
from benchmarks.optimize import lists
from benchmarks.optimize.schemas import problems_of
from benchmarks.optimize.settings import (
    DEFAULTS,
    Dimension,
    Setting,
    SettingError,
    Space,
    check_apart,
    parse_fixed,
    parse_over,
)

WORDS = lists.words_of(VLLM, "demo")


def vllm(options: Any) -> list[str]:
    return problems_of(VLLM, options)


def llamacpp(options: Any) -> list[str]:
    return problems_of(LLAMACPP, options)


def test_one_option_at_a_time_or_several_at_once() -> None:
    apart = parse_over(["max_num_seqs=16,64,256", "speculative=off,draft"], WORDS, vllm)
    at_once = parse_over(["max_num_seqs=16|64|256,speculative=off|draft"], WORDS, vllm)
    assert apart == at_once
    draft = {"method": "draft_model", "model": "demo", "num_speculative_tokens": 4}
    assert apart == (Dimension("max_num_seqs", (16, 64, 256)), Dimension("speculative", (None, draft)))


def test_values_are_json_or_words() -> None:
    found = parse_over(["flash_attn=default,on,off", "kv-unified=true,false"], {}, llamacpp)
    assert found == (Dimension("flash_attn", (None, "on", "off")), Dimension("kv_unified", (True, False)))
    [group] = parse_over(['speculative=off,{"method": "ngram", "num_speculative_tokens": 2}'], WORDS, vllm)
    assert group.values == (None, {"method": "ngram", "num_speculative_tokens": 2})


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["n_seq_maxx=4"], "did you mean 'n_seq_max'?"),
        (["n_seq_max=4,1000"], "n_seq_max: must be 0 to 128, got 1000"),
        (["flash_attn=maybe"], "must be one of auto, on, off"),
        (["n_seq_max=many"], "n_seq_max: expected"),
        (["n_seq_max=4,4"], "listed twice"),
        (["n_seq_max="], "an empty value"),
        (["16,64"], "write NAME=VALUE,VALUE"),
        (
            ["n_batch=" + ",".join(map(str, range(1, 1200))), "n_threads=" + ",".join(map(str, range(1, 120)))],
            "combinations",
        ),
    ],
)
def test_what_no_engine_has_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(SettingError, match="--over") as caught:
        parse_over(texts, {}, llamacpp)
    assert said in str(caught.value)


def test_a_fixed_option_has_one_value_and_is_not_varied() -> None:
    assert parse_fixed(["max_model_len=4096,kv_cache_dtype=fp8"], WORDS, vllm) == {
        "max_model_len": 4096,
        "kv_cache_dtype": "fp8",
    }
    with pytest.raises(SettingError, match="tries several"):
        parse_fixed(["n_ctx=4096,8192"], {}, llamacpp)
    with pytest.raises(SettingError, match="did you mean 'n_ctx'"):
        parse_fixed(["n_ctxx=4096"], {}, llamacpp)
    with pytest.raises(SettingError, match="cannot be fixed and varied"):
        check_apart([Dimension("n_ctx", (1,))], {"n_ctx": 4096})


def test_every_combination_is_there_once_without_the_defaults() -> None:
    space = Space((Dimension("a", (None, 1)), Dimension("b", (None, 2, 3))), {"c": 9})
    settings = space.settings()
    assert [setting.options for setting in settings] == [
        {"b": 2},
        {"b": 3},
        {"a": 1},
        {"a": 1, "b": 2},
        {"a": 1, "b": 3},
    ]
    assert space.options_of(settings[0]) == {"c": 9, "b": 2}
    assert space.options_of(DEFAULTS) == {"c": 9}


def test_the_same_options_are_the_same_setting() -> None:
    assert Setting.of({"b": 2, "a": 1}) == Setting.of({"a": 1, "b": 2, "c": None})
    assert Setting.of({"b": False, "a": "q8_0"}).label == "a q8_0, b false"
    assert DEFAULTS.label == "defaults"


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("kind", [LLAMACPP, VLLM])
def test_the_usual_lists_are_what_the_engines_have(kind: str, has_gpu: bool) -> None:
    dimensions = lists.usual(kind, 2, has_gpu, None)
    words = lists.words_of(kind, None)
    read = parse_over([str(dimension) for dimension in dimensions], words, lambda options: problems_of(kind, options))
    assert read == dimensions
