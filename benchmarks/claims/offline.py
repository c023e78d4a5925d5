"""Quantisation, and kinds of attention: measured by a child, not over HTTP."""

import asyncio
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from benchmarks.child import ChildError
from benchmarks.claims.batching import ARTICLE
from benchmarks.claims.child import TorchChild, torch_child
from benchmarks.claims.claim import Claim, Judgement, exact, judge
from benchmarks.claims.figures import Score, advantage
from benchmarks.claims.setting import Setting
from benchmarks.statistics.interval import Interval
from benchmarks.vllm_gateway import say

REFERENCE = "F16"
SPEEDS = {"Q8_0": 58 / 42, "Q6_K": 65 / 42, "Q5_K_M": 72 / 42, "Q4_K_M": 81 / 42, "Q2_K": 95 / 42}
"""Of the article's table: tokens a second over those of FP16."""
SIZES = {"Q8_0": 16.1 / 8.5, "Q6_K": 16.1 / 6.6, "Q5_K_M": 16.1 / 5.7, "Q4_K_M": 16.1 / 4.9, "Q2_K": 16.1 / 3.2}
"""Of the article's table: FP16's file over this one."""
ROUNDING = 0.02
"""The table's sizes have two digits."""
EAGER, SECONDS = "eager", "prefill s"
KINDS = (EAGER, "sdpa", "flash_attention_2")
ATTENTION = {4096: (1.5, 2.0), 32768: (3.0, 5.0)}
"""Of the article: prompt length -> times as fast as plain attention."""


async def quantised(setting: Setting) -> dict[str, Any]:
    """`forgegate quantize` makes the levels and measures their speed, size and perplexity, round by round."""
    out = setting.folder("quantised") / "levels"
    words = ("quantize", setting.model, "--to", ",".join((REFERENCE, *SPEEDS)), "--out", str(out), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode != 0:
        lines = errors.decode("utf-8", "replace").splitlines()
        raise ChildError(
            f"`forgegate {' '.join(words)}` ended with exit code {process.returncode}: {lines[-1] if lines else ''}"
        )
    found: dict[str, Any] = orjson.loads(output)
    forms = {form["level"]: form for form in found["forms"]}
    judgements = [judgement for level in SPEEDS if level in forms for judgement in of_level(level, forms)]
    shown = (
        "size_bytes",
        "bits_per_weight",
        "prefill_tok_s",
        "decode_tok_s",
        "perplexity",
        "perplexity_ratio",
        "prefill_ratio",
        "decode_ratio",
    )
    levels = {level: {name: form[name] for name in shown} for level, form in forms.items()}
    return {"judgements": [each.as_dict() for each in judgements], "levels": levels, "text": found["text"]}


def of_level(level: str, forms: Mapping[str, Mapping[str, Any]]) -> list[Judgement]:
    """Its speed and size against the article's table."""
    form, whole = forms[level], forms[REFERENCE]
    speed = Claim(ARTICLE, f"{level}: {SPEEDS[level]:.2f}x FP16's tokens a second", round(SPEEDS[level], 2))
    size = Claim(ARTICLE, f"{level}: a file {SIZES[level]:.2f} times smaller", round(SIZES[level] * (1 - ROUNDING), 2))
    return [
        judge(speed, f"1 stream: {level} / {REFERENCE}", "decode tok/s", _interval(form["decode_ratio"])),
        judge(size, f"{REFERENCE} / {level}", "bytes", exact(whole["size_bytes"] / form["size_bytes"])),
    ]


def _interval(found: Mapping[str, float] | None) -> Interval | None:
    return None if found is None else Interval(found["value"], found["low"], found["high"], 0.95, 0, 0, 0.0)


async def attention(setting: Setting) -> dict[str, Any]:
    """transformers' kinds of attention, loaded side by side, in turns at each prompt length."""
    words = [*setting.torch_words, "--kinds", ",".join(KINDS)]
    log = setting.folder("attention") / "attention.log"
    async with torch_child(setting.torch_python, "attention_speed.py", words, log) as child:
        kinds: list[str] = (await child.ask(do="kinds"))["kinds"]
        found = {length: await _at_length(child, kinds, length, setting.repeats) for length in setting.scale.contexts}
    judgements = [each for length, scores in found.items() for each in of_length(length, scores)]
    medians = {str(length): _medians(scores) for length, scores in found.items()}
    return {"judgements": [each.as_dict() for each in judgements], "medians": {"prefill": medians}, "kinds": kinds}


def _medians(scores: Mapping[str, Sequence[Score]]) -> dict[str, dict[str, float]]:
    """Of the kinds that fit."""
    return {
        kind: {SECONDS: statistics.median(score.figures[SECONDS] for score in runs)}
        for kind, runs in scores.items()
        if is_whole(runs)
    }


async def _at_length(child: TorchChild, kinds: Sequence[str], length: int, repeats: int) -> dict[str, list[Score]]:
    scores: dict[str, list[Score]] = {kind: [] for kind in kinds}
    for turn in range(-1, repeats):  # one turn to warm up
        for kind in kinds if turn % 2 == 0 else reversed(kinds):
            if scores[kind] and not is_whole(scores[kind]):
                continue
            answer = await child.ask(do="prefill", kind=kind, length=length)
            score = (
                Score({}, ("does not fit into the memory",))
                if answer.get("out_of_memory")
                else Score({SECONDS: answer["seconds"]})
            )
            say(f"{length} tokens, {kind}: {score.figures.get(SECONDS, 'out of memory')}")
            if turn >= 0 or score.faults:
                scores[kind].append(score)
    return scores


def is_whole(runs: Sequence[Score]) -> bool:
    """Whether every turn has its figure."""
    return bool(runs) and not any(score.faults for score in runs)


def of_length(length: int, scores: Mapping[str, Sequence[Score]]) -> list[Judgement]:
    """What the article says of this length, of every other kind against the plain one."""
    least, most = ATTENTION.get(length, (1.0, None))
    says = (
        f"FlashAttention: {least:g}-{most:g}x at {length} tokens"
        if most
        else "FlashAttention is faster than plain attention"
    )
    found = []
    for kind in (kind for kind in scores if kind != EAGER):
        faults = [f"{name}: {fault}" for name in (EAGER, kind) for score in scores[name] for fault in score.faults]
        ratio = None if faults else advantage(as_rates(scores[EAGER]), as_rates(scores[kind]), SECONDS)
        found.append(
            judge(
                Claim(ARTICLE, says, least, most), f"{length} tokens: {kind} / {EAGER}", "prefill tok/s", ratio, faults
            )
        )
    return found


def as_rates(runs: Sequence[Score]) -> list[Score]:
    """Prefills a second: more is better."""
    return [Score({SECONDS: 1 / score.figures[SECONDS]}) for score in runs]
