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
        ({"n_ctx": 100}, "n_ctx: must be at least 256, got 100"),
        ({"n_seq_max": 129}, "n_seq_max: must be 0 to 128, got 129"),
        ({"n_batch": -1}, "n_batch: must be 0 or more, got -1"),
        (
            {"n_batch": 16, "n_seq_max": 17},
            "n_batch: must hold one token of every running request (n_seq_max: 17), got 16",
        ),
        ({"prefix_cache": "perhaps"}, "prefix_cache: expected true or false, got 'perhaps'"),
        ({"cache_type_k": "q3"}, "cache_type_k: must be one of f32, f16"),
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"n_batch": 512, "n_ubatch": 1024}, "n_ubatch: must be 0 to n_batch (512)"),
        ({"n_ctx": 512, "n_ctx_seq": 1024}, "cannot be longer than the whole cache"),
        ({"prefix_cache": False, "prefix_cache_cells": 9}, "but prefix_cache is off"),
        (
            {"kv_unified": False, "n_ctx": 4096, "n_seq_max": 4, "n_ctx_seq": 2048},
            "longer than its share, n_ctx / n_seq_max (1024)",
        ),
        ({"kv_unified": False, "prefix_cache_cells": 9}, "prefix_cache_cells: only with kv_unified"),
        ({"main_gpu": 1}, "main_gpu: only with split_mode none"),
        ({"split_mode": "none", "tensor_split": "1,1"}, "the whole model is on main_gpu"),
        ({"n_ctx": 8192, "prefix_cache_cells": 9000}, "prefix_cache_cells: must be 0 to n_ctx (8192), got 9000"),
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


@pytest.mark.parametrize(
    ("mapping", "sizes"),
    [
        ({}, (8192, 32, 512, 512)),
        ({"n_ctx": 1024}, (1024, 4, 512, 512)),
        ({"n_ctx": 256, "n_seq_max": 5}, (256, 5, 512, 512)),
        ({"n_ctx_seq": 20_000}, (20_000, 32, 512, 512)),
        ({"n_batch": 16}, (8192, 16, 16, 16)),
        ({"n_ubatch": 1024}, (8192, 32, 1024, 1024)),
        ({"n_seq_max": 100, "n_ubatch": 64}, (8192, 100, 512, 64)),
        ({"kv_unified": False}, (65_536, 32, 512, 512)),
        ({"kv_unified": False, "n_seq_max": 4, "n_ctx_seq": 300}, (1200, 4, 512, 512)),
        ({"kv_unified": False, "n_ctx": 8192, "n_ctx_seq": 2048}, (8192, 4, 512, 512)),
    ],
)
def test_open_sizes_are_settled_so_that_they_fit_together(mapping: dict[str, int], sizes: tuple[int, ...]) -> None:
    settled = Options.from_mapping(mapping).settled()
    assert (settled.n_ctx, settled.n_seq_max, settled.n_batch, settled.n_ubatch) == sizes
    assert settled.settled() == settled
