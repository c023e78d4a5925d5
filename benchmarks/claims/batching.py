"""Continuous batching, and PagedAttention apart from it."""

import math
import random
from collections.abc import Mapping
from typing import Any

from benchmarks.claims.child import torch_child
from benchmarks.claims.claim import Claim, Judgement
from benchmarks.claims.contest import Kept, hold, judged, outcome
from benchmarks.claims.contestants import Generated, Rounds, Served
from benchmarks.claims.figures import OUTPUT_TPS, advantage
from benchmarks.claims.fleet import descriptions, direct, started
from benchmarks.claims.setting import BLOCK, Setting
from benchmarks.claims.side_by_side import Contest, compare
from benchmarks.engine_choice import LLAMACPP
from benchmarks.loads import ClosedLoad
from benchmarks.traffic.lengths import LengthDraw

ARTICLE = "on-prem LLM article, part 9"
THROUGHPUT = Claim(ARTICLE, "continuous batching: throughput 2-3x that of static batching", 2, 3)
PAGED_TPS = Claim(ARTICLE, "PagedAttention: throughput of concurrent requests 2-4x", 2, 4)

CONTINUOUS, ROUNDS, GENERATE = "continuous", "static, same engine", "transformers generate"
PAGED, RESERVED = "paged", "reserved"


async def continuous(setting: Setting) -> dict[str, Any]:
    """The same requests to an engine as it is, to that engine in static batches, and to transformers' `generate`, which is another engine
    and judges nothing.
    """
    scale, folder = setting.scale, setting.folder("continuous")
    room = scale.input_tokens + scale.output_tokens.high
    pools = {CONTINUOUS: setting.pool(scale.streams, room + 32, setting.uncached)}
    kept = Kept.read(folder / "turns.json", setting.mark)
    load, plan = setting.load(scale.streams), setting.plan(setting.workload())
    async with (
        started(folder, pools, setting.start_s) as fleet,
        torch_child(setting.torch_python, "static_batching.py", setting.torch_words, folder / "generate.log") as child,
    ):
        target = (await direct(fleet))[CONTINUOUS]
        generated = Generated(GENERATE, child, plan, scale.batch_sizes)
        await hold(
            [Served(CONTINUOUS, target, plan), Rounds(ROUNDS, target, plan), generated], [load], setting.repeats, kept
        )
        engines = await descriptions(fleet)
    tried = {"batch_sizes": generated.tried, "best_batch": generated.best} if generated.tried else {}
    return of_continuous(kept, load) | {"engines": engines, **tried}


def of_continuous(kept: Kept, load: ClosedLoad) -> dict[str, Any]:
    """Batching by static batches on the same engine; `beside`: how many times another engine's speed, whatever makes it so."""
    scores = kept.scores[load.key]
    ratio = advantage(scores[GENERATE], scores[CONTINUOUS], OUTPUT_TPS)
    beside = {GENERATE: {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high}} if ratio else {}
    return outcome([judged(kept, load, THROUGHPUT, OUTPUT_TPS, ROUNDS, CONTINUOUS)], [kept], beside=beside)


async def paged(setting: Setting) -> dict[str, Any]:
    """A KV cache that requests share as they grow, and one of the same size in which each reserves the longest that it may become."""
    load = setting.load(setting.scale.streams * 2)
    contest = Contest("turns", setting.plan(setting.workload()), [load])
    held = await compare(setting, "paged", paged_pools(setting), [contest])
    (kept,) = held.kept
    return outcome(of_paged(kept, load), held.kept, **held.told, computed=reservation(setting))


def of_paged(kept: Kept, load: ClosedLoad) -> list[Judgement]:
    """By throughput alone: how many answers run at once follows from the sizes that were configured, and cannot fail."""
    return [judged(kept, load, PAGED_TPS, OUTPUT_TPS, RESERVED, PAGED)]


def paged_pools(setting: Setting) -> dict[str, Mapping[str, Any]]:
    """llama.cpp can reserve contiguous cells. vLLM cannot: there the one that reserves runs as many requests as reservations fit,
    which is what a reservation comes to.
    """
    scale = setting.scale
    num_reserved = max(1, scale.cells // scale.max_length)
    most = scale.streams * 2
    shared, reserved = setting.uncached, setting.uncached
    if setting.engine == LLAMACPP:
        shared = shared | {"n_ctx_seq": scale.max_length}
        reserved = shared | {"kv_unified": False}
    return {
        RESERVED: setting.pool(num_reserved, scale.max_length, reserved, scale.cells),
        PAGED: setting.pool(most, scale.max_length, shared, scale.cells),
    }


def reservation(setting: Setting) -> dict[str, float]:
    """What the drawn lengths come to, before anything is measured."""
    scale = setting.scale
    lengths = _lengths(scale.output_tokens, setting.seed)
    whole = [scale.input_tokens + length for length in lengths]
    blocks = [math.ceil(tokens / BLOCK) * BLOCK for tokens in whole]
    mean, held = sum(whole) / len(whole), sum(blocks) / len(blocks)
    num_reserved, num_paged = scale.cells // scale.max_length, scale.cells / held
    return {
        "cells": scale.cells, "reserved_each": scale.max_length, "mean_tokens": mean,
        "reserved_per_token": scale.max_length / mean, "paged_per_token": held / mean,
        "reserved_at_once": num_reserved, "paged_at_once": num_paged, "at_once_ratio": num_paged / num_reserved,
    }  # fmt: skip


def _lengths(draw: LengthDraw, seed: int, num: int = 10_000) -> list[int]:
    rng = random.Random(seed)
    return [draw.draw(rng) for _ in range(num)]
