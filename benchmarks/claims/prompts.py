"""Prefix caching and chunked prefill."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.contest import judged, outcome
from benchmarks.claims.figures import ITL_P99, OUTPUT_TPS, TTFT
from benchmarks.claims.setting import Setting
from benchmarks.claims.side_by_side import Contest, compare
from benchmarks.engine_choice import LLAMACPP
from benchmarks.traffic.prefixes import SharedPrefix

WITH, WITHOUT = "cached", "not cached"
CHUNKED, WHOLE = "chunked", "whole prompts"
VLLM = "vLLM's documentation"
SOONER = Claim(VLLM, "a prefix that is cached is not computed again: the first text comes sooner", 1.0)
FREE = Claim(
    "vLLM V1's announcement", "prefix caching costs less than 1 % of the throughput where nothing is shared", 0.99
)
SMOOTHER = Claim(VLLM, "chunked prefill improves inter-token latency", 1.0)


async def prefix(setting: Setting) -> dict[str, Any]:
    """Engines with and without a prefix cache: requests that begin alike, and requests that share nothing."""
    scale, load, workload = setting.scale, setting.load(setting.scale.streams), setting.workload()
    groups, shared = scale.prefix
    room = shared + scale.input_tokens + scale.output_tokens.high + 32
    pools = {way: setting.pool(scale.streams, room, setting.prefix_cache(way == WITH)) for way in (WITHOUT, WITH)}
    contests = [
        Contest("alike", setting.plan(replace(workload, prefix=SharedPrefix(groups, shared))), [load]),
        Contest("apart", setting.plan(workload, seed=1), [load]),
    ]
    held = await compare(setting, "prefix", pools, contests)
    alike, apart = held.kept
    judgements = [
        judged(alike, load, SOONER, TTFT, WITHOUT, WITH, f"{load.label}, {groups} prefixes of {shared} tokens"),
        judged(apart, load, FREE, OUTPUT_TPS, WITHOUT, WITH, f"{load.label}, nothing shared"),
    ]
    return outcome(judgements, held.kept, **held.told)


async def chunked(setting: Setting) -> dict[str, Any]:
    """Long prompts arrive while answers are being written: in chunks between their tokens, or each in one step."""
    scale = setting.scale
    streams = max(2, scale.streams // 4) if setting.has_gpu else scale.streams
    load = setting.load(streams)
    contest = Contest("turns", setting.plan(setting.workload(scale.long_prompts)), [load])
    held = await compare(setting, "chunked", chunked_pools(setting, streams), [contest])
    case = f"{load.label}, prompts of {scale.long_prompts} tokens, chunks of {scale.chunk}"
    return outcome([judged(held.kept[0], load, SMOOTHER, ITL_P99, WHOLE, CHUNKED, case)], held.kept, **held.told)


def chunked_pools(setting: Setting, streams: int) -> dict[str, Mapping[str, Any]]:
    """Alike but for the tokens of a step."""
    scale = setting.scale
    room = scale.long_prompts.high + scale.output_tokens.high + 32
    if setting.engine == LLAMACPP:
        sizes = {WHOLE: max(512, room), CHUNKED: scale.chunk}
        changes: dict[str, dict[str, Any]] = {name: {"n_batch": size, "n_ubatch": size} for name, size in sizes.items()}
    else:
        changes = {
            WHOLE: {"enable_chunked_prefill": False, "max_num_batched_tokens": room},
            CHUNKED: {"enable_chunked_prefill": True, "max_num_batched_tokens": max(scale.chunk, streams)},
        }
    return {name: setting.pool(streams, room, setting.uncached | more) for name, more in changes.items()}
