"""Options: every mistake is named, with the nearest known key; flags and mappings mean the same."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from backends.llamacpp.options import Options, OptionsError, add_arguments, from_args, option_docs


def test_every_option_is_documented_and_has_a_flag() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for field in dataclasses.fields(Options):
        assert option_docs()[field.name]
        assert f"--{field.name.replace('_', '-')}" in flags


def test_flags_and_mappings_agree() -> None:
    options = Options.from_mapping(
        {"n_ctx": 4096, "flash_attn": True, "prefix_cache": False, "tensor_split": [3, 1], "cache_type_k": "q8_0"}
    )
    assert options.flash_attn == "on"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert from_args(parser.parse_args(options.to_argv())) == options
    assert Options().to_argv() == []


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"n_ctxx": 1}, "unknown option 'n_ctxx' (did you mean 'n_ctx'?)"),
        ({"n_ctx": "many"}, "n_ctx: expected a whole number, got 'many'"),
        ({"n_ctx": True}, "n_ctx: expected a whole number, got True"),
        ({"n_ctx": 1.5}, "n_ctx: expected a whole number, got 1.5"),
        ({"n_ctx": 0}, "n_ctx: must be at least 256, got 0"),
        ({"n_seq_max": 0}, "n_seq_max: must be 1 to 128, got 0"),
        ({"prefix_cache": "perhaps"}, "prefix_cache: expected true or false, got 'perhaps'"),
        ({"cache_type_k": "q3"}, "cache_type_k: must be one of f32, f16"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"n_ubatch": 1024}, "n_ubatch: must be 1 to n_batch (512)"),
        ({"n_ctx": 512, "n_ctx_seq": 1024}, "cannot be longer than the whole cache"),
        ({"prefix_cache": False, "prefix_cache_cells": 9}, "but prefix_cache is off"),
        ({"main_gpu": 1}, "main_gpu: only with split_mode none"),
        ({"split_mode": "none", "tensor_split": "1,1"}, "the whole model is on main_gpu"),
        ({"prefix_cache_cells": 9000}, "prefix_cache_cells: must be 0 to n_ctx (8192), got 9000"),
        ({"chat_template": "/nowhere.jinja"}, "no such file: /nowhere.jinja"),
    ],
)
def test_mistakes_are_named(mapping: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Options.from_mapping(mapping)
    assert problem in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        Options.from_mapping({"n_ctx": 1, "split_mode": "diagonal", "tpyo": 1, "n_batch": "x"})
    assert len(caught.value.problems) == 4
